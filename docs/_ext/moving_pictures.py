"""The moving pictures of the concepts page, drawn by docs/pictures.py in a process of its own, once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError


def draw(app: Sphinx) -> None:
    """Draw what is missing or older than the script."""
    script, folder = Path(app.srcdir) / "pictures.py", Path(app.srcdir) / "_pictures"
    done = folder / "done"
    if done.exists() and done.stat().st_mtime >= script.stat().st_mtime:
        return
    finished = subprocess.run([sys.executable, str(script), str(folder)], capture_output=True, text=True)
    if finished.returncode:
        raise ExtensionError(f"the moving pictures cannot be drawn: {finished.stderr[-2000:]}")
    done.touch()


def setup(app: Sphinx) -> dict:
    """Draw before pages are read."""
    app.connect("builder-inited", draw)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
