"""Configuration of the documentation: everything is made on this machine, and nothing is fetched by a reader."""

from __future__ import annotations

import os
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))
os.environ["MATPLOTLIBRC"] = str(HERE / "_static" / "matplotlibrc")  # of notebooks and gallery scripts as well
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")

project = "mfresnet"
author = "The mfresnet developers"
copyright = "The mfresnet developers, Apache-2.0"
version = release = installed_version("mfresnet")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
    "sphinx_copybutton",
    "sphinx_design",
    "mathml",
    "docstrings",
    "api_pages",
    "settings_page",
    "benchmark_pages",
    "moving_pictures",
]
exclude_patterns = ["_build", "_ext", "_static", "gallery", "_gallery/*.ipynb", "**/.ipynb_checkpoints"]
templates_path = ["_templates"]
nitpicky = False
highlight_language = "none"  # of blocks that name no language: commands and formulas
default_role = "py:obj"  # a name in single backticks of a docstring

# Pages: Markdown, executed notebooks as text.
myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath", "fieldlist"]
myst_heading_anchors = 3
myst_dmath_double_inline = True
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "jupyter_cache")
nb_execution_timeout = 1200  # a busy machine needs many times as long as a quiet one
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True

# Reference.
autodoc_mock_imports = ["torch"]  # of mfresnet.torch, whose extra a build does not need
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
viewcode_line_numbers = True
bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

sphinx_gallery_conf = {
    "examples_dirs": ["gallery"],
    "gallery_dirs": ["_gallery"],
    "filename_pattern": r"/plot_",
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "min_reported_time": 1e6,
    "write_computation_times": False,
    "remove_config_comments": True,
    "abort_on_example_error": True,
    "capture_repr": (),
    "reset_modules": (),  # the style of _static/matplotlibrc stays
    "thumbnail_size": (480, 320),
}

# Look. Assets are local: no web font, no script from elsewhere.
html_theme = "furo"
html_title = f"mfresnet {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_show_search_summary = False  # it fetches pages, which browsers refuse for files
html_math_renderer = "mathml"
html_theme_options = {
    "light_css_variables": {"color-brand-primary": "#0f5f7a", "color-brand-content": "#0f5f7a"},
    "dark_css_variables": {"color-brand-primary": "#6cc5e0", "color-brand-content": "#6cc5e0"},
    "navigation_with_keys": True,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
suppress_warnings = ["mystnb.unknown_mime_type", "ref.python"]  # the latter: one name in two packages
