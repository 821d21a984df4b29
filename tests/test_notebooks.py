"""House rules for the notebooks: prose, calls and figures; the code is in the library."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from book.build import chapters

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_LINES = 25
FUNCTION_LINES = 5
MOST_SECONDS = {"smoke": 120, "quick": 300}
"""More than this no chapter may ask for: a clean `make book` takes ten minutes on two cores."""

# A path of one machine; what stands after a letter, a dot or a quoted variable is not absolute.
ABSOLUTE = re.compile(r"(?<![\w.~$}/:<-])/(?:home|root|Users|tmp|work|mnt|opt|var|usr)\b|\b[A-Z]:\\+\w")

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[tuple[dict[str, Any], str]]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [(cell, "".join(cell["source"])) for cell in cells if cell["cell_type"] == "code"]


def test_notebooks_are_stored_in_canonical_form() -> None:
    check = subprocess.run([sys.executable, ROOT / "book/clean.py", "--check"], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


def test_table_of_contents_lists_exactly_the_notebooks() -> None:
    assert sorted(chapters()) == [path.stem for path in NOTEBOOKS]


@each_notebook
def test_cells_are_short(path: Path) -> None:
    assert not [source for _, source in code_cells(path) if len(source.splitlines()) > CELL_LINES]


@each_notebook
def test_no_library_code(path: Path) -> None:
    for _, source in code_cells(path):
        for node in ast.walk(ast.parse(source)):
            assert not isinstance(node, ast.ClassDef), f"class {node.name} belongs in cpm_lib"
            if isinstance(node, ast.FunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                assert length <= FUNCTION_LINES, f"function {node.name} belongs in cpm_lib"


@each_notebook
def test_parameters_default_to_the_smallest_size(path: Path) -> None:
    sources = [source for cell, source in code_cells(path) if "parameters" in cell["metadata"].get("tags", [])]
    assert len(sources) == 1
    assert 'profile = "smoke"' in sources[0], "pytest --nbval runs the notebook as it is stored"


@each_notebook
def test_pictures_have_words(path: Path) -> None:
    """A cell that makes a figure carries its alternative text, else the page gets a hash, and says what to see."""
    for cell, source in code_cells(path):
        shown = cell["metadata"].get("mystnb", {})
        assert ("image" in shown) == bool(shown.get("figure", {}).get("caption")), source
        if "plt.show(" in source or ".savefig(" in source or "figures." in source:
            assert shown.get("image", {}).get("alt"), source


@pytest.mark.parametrize("name", [path.stem for path in NOTEBOOKS])
def test_solutions_of_exercises_are_checked(name: str) -> None:
    """The chapter runs what its folded solutions say, so a solution cannot go stale."""
    cells = code_cells(ROOT / f"notebooks/{name}.ipynb")
    checks = [source for cell, source in cells if cell["id"] == "exercise-check"]
    assert len(checks) == 1 and "assert" in checks[0]


@each_notebook
def test_no_path_of_one_machine(path: Path) -> None:
    for _, source in code_cells(path):
        assert not ABSOLUTE.findall(source), f"write it relative to the notebook: {source}"


def test_absolute_paths_are_recognised() -> None:
    for bad in ('open("/home/me/x")', "Path('/tmp/run')", "cd /root/book", "C:\\data", "data=/mnt/disk"):
        assert ABSOLUTE.search(bad), bad
    for good in ('Path("..")', "https://github.com/tmp/x", "a/tmp/b", "</root>", "x /home_made", '"../_build/tmp/x"'):
        assert not ABSOLUTE.search(good), good


@each_notebook
def test_costs_are_declared(path: Path) -> None:
    """The builder compares them with what the chapter took, and the cover shows them."""
    declared = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("cpm", {}).get("seconds", {})
    assert declared.keys() == MOST_SECONDS.keys(), "declare cpm.seconds in the notebook's metadata"
    for size, most in MOST_SECONDS.items():
        assert 0 < declared[size] <= most


def test_every_chapter_is_on_the_cover_with_its_cost() -> None:
    cover = (ROOT / "book/index.md").read_text(encoding="utf-8")
    for name in chapters():
        row = re.search(
            rf"^\| \[\]\(\.\./notebooks/{name}\.ipynb\) \| (.+) \| \{{cost\}}`{name}` \|$", cover, re.MULTILINE
        )
        assert row, f"the table of book/index.md needs: | [](../notebooks/{name}.ipynb) | question | {{cost}}`{name}` |"
