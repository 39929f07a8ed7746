"""What a notebook shows: tables and curves, in the outputs of one that is executed."""

import xml.etree.ElementTree as ElementTree

import pytest

from mfresnet import html

CELLS = [
    "from mfresnet import Config, fit\nfrom mfresnet.certify import Certificates\n"
    "config = Config(data={'n': 16, 'n_test': 8}, model={'depth': 2, 'width': 4}, train={'rule': 'adam', 'steps': 4},\n"
    "                diagnostics={'gram_every': 0, 'landscape': False})\nresult = fit(config)\nresult",
    "result.model",
    "Certificates({}, {'kernel': 'it needs <two> classes.'})",
]


def test_an_executed_notebook_shows_results_models_and_certificates(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in CELLS])
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    shown = [cell.outputs[-1]["data"]["text/html"] for cell in notebook.cells]
    for page in shown:
        ElementTree.fromstring(f"<div>{page}</div>")  # well-formed
    assert "completed, step 4" in shown[0] and "<polyline" in shown[0]
    assert "LayeredResNet: 2 inputs" in shown[1] and "&lt;two&gt;" in shown[2]


def test_curves_leave_out_what_is_not_finite():
    page = ElementTree.fromstring(html.curves({"loss": [1.0, float("nan"), 0.0]}, width=10, height=10))
    assert page.find("polyline").attrib["points"] == "0.0,0.0 10.0,10.0"
    assert html.curves({"loss": [float("nan")]}) == ""
