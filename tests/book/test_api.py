"""The reference has every public name of the library, and reads docstrings as they are written."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docutils import nodes

import cpm_lib

sys.path.append(str(Path(__file__).resolve().parents[2] / "book/_ext"))
import docstrings
import library

DOCUMENTED = re.findall(r"^```\{api\} (.+)$", (Path(__file__).parents[2] / "book/api.md").read_text(), re.MULTILINE)
MODULES = " ".join(DOCUMENTED).split()


def exported(module: ModuleType) -> set[str]:
    """Names in ``__all__``, or defined there without a leading dash: asked of the module, not of its source."""
    if hasattr(module, "__all__"):
        return set(module.__all__)
    own = (value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__)
    return {value.__name__ for value in own if hasattr(value, "__name__") and not value.__name__.startswith("_")}


def test_every_package_is_documented() -> None:
    packages = {name for _, name, is_package in pkgutil.iter_modules(cpm_lib.__path__, "cpm_lib.") if is_package}
    assert packages - {"cpm_lib.commands"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_those_of_the_module(name: str) -> None:
    found = {entry.name for entry in library.public(name)}
    missing = exported(importlib.import_module(name)) - found
    assert not missing


def test_the_page_has_every_public_name(html: Path) -> None:
    page = (html / "book/api.html").read_text(encoding="utf-8")
    anchors = set(re.findall(r'id="(cpm_lib[\w.]+)"', page))
    for module in MODULES:
        for entry in library.public(module):
            assert entry.full_name in anchors or f"{entry.full_name}</span></code> is" in page, entry.full_name
    names = set(re.findall(r">([\w.]+)</span></code></a>", page))
    for module in library.modules():
        assert module.removeprefix("cpm_lib.") in names
        assert {entry.name for entry in library.public(module)} <= names


def test_sections_become_fields() -> None:
    text = """Does it, see `other` and ``x < 1``.

    Args:
        boxes: [N, 4], which
            goes on; scores: [N].
        *rest: more.

    Returns:
        What it found:

        - one
        - two

    Raises:
        UserError: bad.
    """
    found = docstrings.convert(text, {"other": "id-of-other"}.get)
    assert [type(node).__name__ for node in found] == ["paragraph", "field_list", "field_list", "field_list"]
    assert found[0].astext() == "Does it, see other and x < 1."
    [reference] = found[0].findall(nodes.reference)
    assert reference["refid"] == "id-of-other"
    assert [item.astext() for item in found[1].findall(nodes.list_item)] == [
        "boxes: [N, 4], which goes on; scores: [N].",
        "*rest: more.",
    ]
    assert [item.astext() for item in found[2].findall(nodes.list_item)] == ["one", "two"]


def test_code_stays_code() -> None:
    found = docstrings.convert("Words.\n\n    indented(code)\n\nx = 1\ny = f(x)\n\nA * and a _ mean nothing_.")
    kinds = [type(node).__name__ for node in found]
    assert kinds == ["paragraph", "literal_block", "literal_block", "paragraph"]
    assert found[3].astext() == "A * and a _ mean nothing_."


def test_first_sentence() -> None:
    assert docstrings.first_sentence("It does\n  this; and that. And more.") == "It does this"
