"""Sphinx extension: formulas without the internet.

Serves MathJax and its fonts from the book's own folder, out of the wheel `sphinx-mathjax-offline`.
That wheel is an extension too, but it copies all of its 24 MB at every build; what TeX input needs is 2 MB.
"""

from __future__ import annotations

import shutil
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

FILES = ("tex-chtml.js", "output/chtml/fonts/*/*")


def copy_mathjax(app: Sphinx, exception: Exception | None) -> None:
    if exception is not None or app.builder.format != "html":
        return
    # The folder has a dash in its name: no import finds it.
    source = Path(str(distribution("sphinx-mathjax-offline").locate_file("sphinx-mathjax-offline/static/mathjax")))
    for path in (found for pattern in FILES for found in source.glob(pattern)):
        target = Path(app.outdir) / "_static/mathjax" / path.relative_to(source)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def setup(app: Sphinx) -> dict[str, Any]:
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
