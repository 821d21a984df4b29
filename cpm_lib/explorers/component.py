"""An explorer: one idea of the paper as a figure that answers when it is touched.

Each is one piece of HTML with its own style, script and data: it needs no kernel, no network and no other file, and
is the same in JupyterLab, in the book and in a file of its own. Its script is ``explorers/<name>.js``, a function
``explorer(kit, data)`` that fills ``kit.root`` and returns its formulas, which the tests compare with Python's;
``core.js`` is the kit. Where scripts do not run, a still picture stays.
"""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from cpm_lib import figure_style
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic


@dataclass(frozen=True)
class Explorer:
    """Shows itself in a notebook; `save` writes it to a file that any browser opens.

    Attributes:
        name: of the script, e.g. "mapping_ratio".
        title: what one can find out here, shown above it.
        words: what the still picture shows, for those who cannot see it or run no scripts.
        data: what the script works with; plain values that JSON can hold.
        still: the picture shown where scripts do not run.
    """

    name: str
    title: str
    words: str = field(repr=False)
    data: Mapping[str, Any] = field(repr=False)
    still: Figure = field(repr=False)

    def _repr_html_(self) -> str:
        try:
            data = json.dumps(self.data, allow_nan=False, separators=(",", ":"))
        except (TypeError, ValueError) as error:
            raise UserError(
                f"explorer '{self.name}': {error}; give plain finite numbers, None for undefined"
            ) from error
        title, words = html.escape(self.title), html.escape(self.words)
        return (
            f'<div class="cpm-explorer" data-name="{self.name}" role="group" aria-label="{title}">'
            f"<style>{_style()}</style>"
            f'<p class="cpm-title">{title}</p>'
            f'<div class="cpm-still"><img class="dark-light" alt="{words}" src="{picture(self.still)}"></div>'
            # A box or a class name must not be able to end the script.
            f'<script type="application/json">{data.replace("<", chr(92) + "u003c")}</script>'
            f"<script>{_script(self.name)}</script>"
            "</div>"
        )

    def page(self) -> str:
        """A whole HTML document with nothing but this explorer; light or dark as the reader's system is."""
        return (
            '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title>"
            "<style>:root{color-scheme:light dark}body{font-family:sans-serif;margin:1rem}</style></head>"
            f"<body><main>{self._repr_html_()}</main></body></html>\n"
        )

    def save(self, path: str | Path) -> Path:
        """Write `page` to a file.

        Raises:
            UserError: the file cannot be written.
        """
        return write_atomic(Path(path), self.page())


def picture(content: Figure | Tensor | Image.Image) -> str:
    """A PNG as ``data:`` address: of a figure, a picture, or a float image [3,H,W] in 0..1."""
    if isinstance(content, Figure):
        data = figure_style.png(content, 72)
    else:
        image = to_pil_image(content.detach().cpu().float().clamp(0, 1)) if isinstance(content, Tensor) else content
        with io.BytesIO() as buffer:
            image.save(buffer, "PNG", optimize=True)
            data = buffer.getvalue()
    return f"data:image/png;base64,{base64.b64encode(data).decode()}"


def photo(image: Tensor, quality: int = 85) -> str:
    """A JPEG as ``data:`` address of an image as for `picture`: a fifth of the size where there is noise."""
    with io.BytesIO() as buffer:
        to_pil_image(image.detach().cpu().float().clamp(0, 1)).save(buffer, "JPEG", quality=quality, optimize=True)
        return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def plain(tensor: Tensor, digits: int = 2) -> list[Any]:
    """Nested lists of rounded numbers: what a page needs of a tensor, in few characters."""
    return (tensor.detach().cpu().double() * 10**digits).round().div(10**digits).tolist()


@cache
def _source(file: str) -> str:
    return files("cpm_lib.explorers").joinpath(file).read_text(encoding="utf-8")


def _style() -> str:
    colours = {
        "truth": figure_style.GROUND_TRUTH,
        "proposal": figure_style.PROPOSAL,
        "prediction": figure_style.PREDICTION,
        **{f"stage{number}": colour for number, colour in enumerate(figure_style.STAGES, 1)},
        **{f"series{number}": colour for number, colour in enumerate(figure_style.SERIES, 1)},
    }
    names = "".join(f"--cpm-{name}:{colour};" for name, colour in colours.items())
    return f".cpm-explorer{{{names}}}{_source('core.css')}"


def _script(name: str) -> str:
    return (
        "(() => {"
        # Set only while this script runs, so it is read first of all.
        'const root = document.currentScript.closest(".cpm-explorer");'
        f"{_source('core.js')}{_source(f'{name}.js')}"
        "const data = JSON.parse(root.querySelector('script[type=\"application/json\"]').textContent);"
        "const still = root.querySelector('.cpm-still');"
        "const formulas = explorer(explorerKit(root), data);"
        "still.remove();"
        # For the tests, which compute the same in Python.
        "root.cpm = { formulas };"
        "})();"
    )
