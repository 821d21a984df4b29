"""The canonical form of the notebooks: what is stored, and what is not.

A stored notebook has no outputs, except those of cells tagged `nbval-check-output`: they are compared when
the tests run the notebook. nbval compares a cell only if it has an execution count, so that only those have one.

    clean.py             write the canonical form
    clean.py --check     only say which notebooks differ, exit 1 if any does
    clean.py --accept    also take the checked outputs from the last smoke build of the book

All notebooks, or those named: `clean.py notebooks/02_grid.ipynb`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
EXECUTED = ROOT / "_build/stage/smoke/raw"
CHECKED = "nbval-check-output"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def checked_outputs(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Text only: pictures and HTML differ from machine to machine."""
    kept = []
    for output in outputs:
        if output["output_type"] == "stream":
            kept.append({"name": output["name"], "output_type": "stream", "text": lines(output["text"])})
        elif "text/plain" in output.get("data", {}):
            entry = {"data": {"text/plain": lines(output["data"]["text/plain"])}, "metadata": {}}
            count = {"execution_count": 1} if output["output_type"] == "execute_result" else {}
            kept.append({**entry, **count, "output_type": output["output_type"]})
    return kept


def lines(text: str | list[str]) -> list[str]:
    return "".join(text).splitlines(keepends=True)


def canonical(notebook: dict[str, Any]) -> dict[str, Any]:
    """The notebook with nothing but what an author wrote; `cpm` holds the time estimates for the builder."""
    cells = []
    for number, cell in enumerate(notebook["cells"]):
        metadata = {name: cell["metadata"][name] for name in ("mystnb", "tags") if cell["metadata"].get(name)}
        source = lines("".join(cell["source"]).strip("\n"))
        clean = {"cell_type": cell["cell_type"], "id": cell.get("id", f"cell-{number}"), "metadata": metadata}
        if cell["cell_type"] == "code":
            checked = CHECKED in metadata.get("tags", [])
            clean["execution_count"] = 1 if checked else None
            clean["outputs"] = checked_outputs(cell["outputs"]) if checked else []
        cells.append(clean | {"source": source})
    metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
    if "cpm" in notebook["metadata"]:
        metadata["cpm"] = notebook["metadata"]["cpm"]
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def accept(notebook: dict[str, Any], executed: dict[str, Any]) -> None:
    """Put the outputs of the executed copy into the checked cells, matched by cell id."""
    outputs = {cell["id"]: cell["outputs"] for cell in executed["cells"] if cell["cell_type"] == "code"}
    for cell in notebook["cells"]:
        if CHECKED in cell["metadata"].get("tags", []):
            cell["outputs"] = outputs.get(cell["id"], cell["outputs"])


def text_of(notebook: dict[str, Any]) -> str:
    return json.dumps(canonical(notebook), indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    options = parser.parse_args()
    changed = 0
    for path in map(Path.resolve, options.notebooks or sorted(NOTEBOOKS.glob("*.ipynb"))):
        before = path.read_text(encoding="utf-8")
        notebook = json.loads(before)
        if options.accept and (EXECUTED / path.name).exists():
            accept(notebook, json.loads((EXECUTED / path.name).read_text(encoding="utf-8")))
        after = text_of(notebook)
        if after == before:
            continue
        changed += 1
        print(f"{path.relative_to(ROOT)}: {'not canonical, run book/clean.py' if options.check else 'rewritten'}")
        if not options.check:
            path.write_text(after, encoding="utf-8")
    return 1 if options.check and changed else 0


if __name__ == "__main__":
    sys.exit(main())
