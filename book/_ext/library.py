"""What the library offers, read from its sources without importing them: names, signatures, docstrings, lines."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

PACKAGE = "cpm_lib"
Definition = ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign | ast.Module


@cache
def root() -> Path:
    """The folder that holds the package; finding it does not import it."""
    spec = importlib.util.find_spec(PACKAGE)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).parents[1]


@dataclass(frozen=True)
class Entry:
    """One documented name: `name` in `module` (dotted), where `node` defines it in `origin`, a dotted module too.

    A name may be a module itself; then that is both `origin` and `node`.
    """

    module: str
    name: str
    origin: str
    node: Definition
    doc: str

    @property
    def line(self) -> int:
        return 1 if isinstance(self.node, ast.Module) else self.node.lineno

    @property
    def full_name(self) -> str:
        return f"{self.module}.{self.name}"


def file_of(module: str) -> Path:
    """The source of a module, also of a package."""
    path = root() / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(file_of(module).read_text(encoding="utf-8"))


def modules(package: str = PACKAGE) -> list[str]:
    """All modules of a package, dotted, without itself and without private ones."""
    folder = root() / package.replace(".", "/")
    found = [path.relative_to(root()).with_suffix("") for path in sorted(folder.rglob("*.py"))]
    names = [".".join(path.parts) for path in found if path.name != "__init__"]
    return [name for name in names if not name.rpartition(".")[2].startswith("_")]


def packages() -> list[str]:
    """The package and its sub-packages, dotted."""
    found = sorted(path.parent.relative_to(root()) for path in (root() / PACKAGE).rglob("__init__.py"))
    return [".".join(path.parts) for path in found]


def public(module: str) -> list[Entry]:
    """The names a module offers: those in its ``__all__``, else all functions and classes without a leading dash,
    and constants with a docstring, in the order of the file."""
    listed = next((ast.literal_eval(n.value) for n in tree(module).body if _targets(n) == ["__all__"]), None)
    if listed is None:
        return [Entry(module, name, module, node, doc) for name, node, doc in defined(module) if name[0] != "_"]
    return [_find(module, name) for name in listed]


def defined(module: str) -> Iterator[tuple[str, Definition, str]]:
    """(name, node, docstring) of what a module defines; constants only if they have a docstring."""
    yield from documented(tree(module).body)


def documented(body: list[ast.stmt]) -> Iterator[tuple[str, Definition, str]]:
    """The same for the body of a module or of a class."""
    for node, following in zip(body, [*body[1:], None], strict=True):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node, ast.get_docstring(node) or ""
        elif isinstance(node, ast.Assign | ast.AnnAssign) and (doc := _string(following)):
            for name in _targets(node):
                yield name, node, doc


def fields(node: ast.ClassDef) -> list[tuple[ast.AnnAssign, str]]:
    """The annotated fields of a data class with what is written below them; empty for other classes."""
    if not any("dataclass" in ast.unparse(d) for d in node.decorator_list) and not _is_tuple(node):
        return []
    pairs = zip(node.body, [*node.body[1:], None], strict=True)
    found = [(one, _string(following)) for one, following in pairs if isinstance(one, ast.AnnAssign)]
    return [(one, doc) for one, doc in found if not _targets(one)[0].startswith("_")]


def _is_tuple(node: ast.ClassDef) -> bool:
    return any("NamedTuple" in ast.unparse(base) for base in node.bases)


def _find(module: str, name: str) -> Entry:
    """Where a name that `module` lists is defined, through any number of imports."""
    origin, seen = module, set()
    while origin not in seen:
        seen.add(origin)
        for found, node, doc in defined(origin):
            if found == name:
                return Entry(module, name, origin, node, doc)
        for node in ast.walk(tree(origin)):
            if isinstance(node, ast.ImportFrom) and node.module and name in [alias.name for alias in node.names]:
                if file_of(f"{node.module}.{name}").is_file() and node.module == origin:
                    inner = tree(f"{origin}.{name}")
                    return Entry(module, name, f"{origin}.{name}", inner, ast.get_docstring(inner) or "")
                origin = node.module
                break
            if isinstance(node, ast.Assign | ast.AnnAssign) and _targets(node) == [name]:
                return Entry(module, name, origin, node, "")
    raise LookupError(f"{module}: '{name}' is in __all__, but it is defined nowhere in {PACKAGE}")


def _targets(node: ast.stmt) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _string(node: ast.stmt | None) -> str:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
        return ast.literal_eval(node.value)
    return ""
