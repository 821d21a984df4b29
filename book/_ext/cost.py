"""Sphinx extension: the role `cost`, what a chapter takes on two cores, as its notebook declares it.

`` {cost}`00_quickstart` `` becomes "4 min". The builder warns when a chapter takes much longer than that.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxRole


class Cost(SphinxRole):
    """The role; the text in it is the name of a notebook."""

    def run(self) -> tuple[list[nodes.Node], list[nodes.system_message]]:
        path = Path(self.env.srcdir, "notebooks", f"{self.text}.ipynb")
        self.env.note_dependency(str(path))
        try:
            seconds = json.loads(path.read_text(encoding="utf-8"))["metadata"]["cpm"]["seconds"]["quick"]
        except (OSError, ValueError, KeyError):
            message = self.inliner.reporter.warning(f"notebook '{self.text}' declares no seconds", line=self.lineno)
            return [], [message]
        text = f"{5 * -(-seconds // 5):.0f} s" if seconds < 60 else f"{seconds / 60:.0f} min"
        return [nodes.Text(text)], []


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_role("cost", Cost())
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
