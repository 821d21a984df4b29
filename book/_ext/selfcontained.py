"""Sphinx extension: formulas without the internet, and only the icons that are used.

Serves MathJax and its fonts from the book's own folder, out of the wheel `sphinx-mathjax-offline`.
That wheel is an extension too, but it copies all of its 24 MB at every build; what TeX input needs is 2 MB.

The theme loads 1.5 MB of icons on every page, of which it shows a dozen: the others are taken out.
"""

from __future__ import annotations

import re
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


_ICON = re.compile(r'"?([\w-]+)"?:\[\d+,\d+,\[([^\]]*)\],"[0-9a-f]+",(?:"[^"]*"|\[[^\]]*\])\],?')
"""An icon in the theme's script: name:[width,height,[other names],"code point","path"]."""


def drop_icons(app: Sphinx, exception: Exception | None) -> None:
    """Leave those icons in the theme's script that a page or another script names."""
    script = Path(app.outdir, "_static/scripts/fontawesome.js")
    if exception is not None or not script.exists():
        return
    readers = [path for kind in ("html", "js") for path in Path(app.outdir).rglob(f"*.{kind}")]
    used: set[str] = set()
    for path in readers:
        if path != script and "mathjax" not in path.parts and "source" not in path.parts:
            used.update(re.findall(r"\bfa-([\w-]+)", path.read_text(encoding="utf-8", errors="replace")))

    def kept(icon: re.Match[str]) -> str:
        names = {icon[1], *re.findall(r"[\w-]+", icon[2])}
        return icon[0] if names & used else ""

    script.write_text(_ICON.sub(kept, script.read_text(encoding="utf-8")), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.config.mathjax_path = "mathjax/tex-chtml.js"
    app.connect("build-finished", copy_mathjax)
    app.connect("build-finished", drop_icons)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
