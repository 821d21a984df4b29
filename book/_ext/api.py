"""Sphinx extension: the reference of the library, from its sources, without importing it.

    ```{api} cpm_lib.boxes cpm_lib.model
    ```
    ```{files}
    ```

`api` documents every public name of the modules it is given: signature, docstring, and a link to the line of the
source. `files` is a table of all files with their public names. The sources are pages of their own, below source/.
"""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path
from typing import Any

import docstrings
import library
from docutils import nodes
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

LONGEST = 100
"""Characters of a value that is shown."""

PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{path}</title><link rel="icon" href="data:,">
<style>
:root {{ color-scheme: light dark; background: #fefefe; color: #080808; }}
body {{ margin: 1rem auto; padding: 0 1rem; max-width: 70rem; font-family: sans-serif; }}
pre {{ overflow-x: auto; line-height: 1.35; }}
.highlight .linenos {{ user-select: none; opacity: 0.75; padding-right: 1em; }}
.highlight span:has(> :target), .highlight a:target + * {{ outline: 1px solid; }}
{light}
@media (prefers-color-scheme: dark) {{
{dark}
:root {{ background: #2b2b2b; color: #f8f8f2; }}
a {{ color: #8fc1e8; }}
}}
</style></head>
<body><main><h1>{path}</h1><p><a href="{back}">What the library offers</a></p>
{code}</main></body></html>
"""


class Api(SphinxDirective):
    """Documents modules; the argument names one or several."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        found: list[nodes.Node] = []
        for module in self.arguments[0].split():
            self.env.note_dependency(str(library.file_of(module)))
            about = ast.get_docstring(library.tree(module)) or ""
            place = nodes.inline("", "", *_source_link(self.env.docname, module, 1))
            found += [nodes.paragraph("", "", nodes.strong("", module), nodes.Text(" "), place)]
            found += docstrings.convert(about, self.link(module))
            for entry in library.public(module):
                self.env.note_dependency(str(library.file_of(entry.origin)))
                found.append(self.describe(entry))
        return found

    def owners(self) -> dict[tuple[str, str], str]:
        page = Path(self.env.doc2path(self.env.docname))
        return _owners(page, page.stat().st_mtime)

    def link(self, module: str) -> docstrings.Linker:
        """Where a name in backticks leads: to that name of the same module, or of the only one that has it."""
        ids = list(self.owners().values())

        def find(name: str) -> str | None:
            full = [one for one in ids if one in (name, f"{module}.{name}")]
            short = [one for one in ids if one.rpartition(".")[2] == name]
            return full[0] if full else short[0] if len(short) == 1 else None

        return find

    def describe(self, entry: library.Entry) -> nodes.Node:
        identity, kind = entry.full_name, _kind(entry.node)
        only = self.owners()[entry.origin, entry.name]
        if only != identity:
            reference = nodes.reference("", "", nodes.literal("", only), refid=only, internal=True)
            return nodes.paragraph("", "", nodes.literal("", identity), nodes.Text(" is "), reference, nodes.Text("."))
        signature = _signature(entry.node, entry.name, f"{entry.module}.", kind)
        signature["ids"] = [identity]
        signature += _source_link(self.env.docname, entry.origin, entry.line)
        content = addnodes.desc_content("", *docstrings.convert(entry.doc, self.link(entry.module)))
        if isinstance(entry.node, ast.ClassDef | ast.Module):
            content += self.members(entry.node, entry.module)
        self.state.document.note_explicit_target(signature)
        self.env.get_domain("py").note_object(identity, kind, identity, location=signature)
        return addnodes.desc("", signature, content, domain="py", objtype=kind, classes=["py", kind])

    def members(self, node: ast.ClassDef | ast.Module, module: str) -> list[nodes.Node]:
        """Fields of a data class, then documented public methods and properties; of a module the functions."""
        found: list[nodes.Node] = []
        items = []
        for one, doc in library.fields(node) if isinstance(node, ast.ClassDef) else ():
            text = re.sub(r"field\(default_factory=(\w+)\)", r"\1()", ast.unparse(one))
            line = nodes.paragraph(
                "", "", nodes.literal("", text if len(text) <= LONGEST else text[: LONGEST - 1] + "…")
            )
            items.append(nodes.list_item("", line, *docstrings.convert(doc, self.link(module))))
        if items:
            found.append(nodes.bullet_list("", *items))
        for name, inner, doc in library.documented(node.body):
            if isinstance(inner, ast.FunctionDef) and doc and not name.startswith("_"):
                kind = "property" if any(ast.unparse(d) == "property" for d in inner.decorator_list) else "method"
                signature = _signature(inner, name, "", kind)
                content = addnodes.desc_content("", *docstrings.convert(doc, self.link(module)))
                found.append(addnodes.desc("", signature, content, domain="py", objtype=kind, classes=["py", kind]))
        return found


class Files(SphinxDirective):
    """A table of all files of the library: what each holds, and its public names, linked to their lines."""

    def run(self) -> list[nodes.Node]:
        body = nodes.tbody()
        for module in sorted([*library.packages(), *library.modules()]):
            path = library.file_of(module)
            self.env.note_dependency(str(path))
            about = docstrings.first_sentence(ast.get_docstring(library.tree(module)) or "")
            names = nodes.paragraph("")
            for entry in library.public(module):
                names += [nodes.Text(", ")] if names.children else []
                names += _source_link(self.env.docname, entry.origin, entry.line, entry.name)
            link = _source_link(self.env.docname, module, 1, module.removeprefix(f"{library.PACKAGE}."))
            cells = (nodes.paragraph("", "", *link), nodes.paragraph("", "", *docstrings.inline(about)), names)
            body += nodes.row("", *(nodes.entry("", cell) for cell in cells))
        heading = (nodes.entry("", nodes.paragraph("", text)) for text in ("file", "holds", "names"))
        columns = (nodes.colspec(colwidth=width) for width in (20, 40, 40))
        group = nodes.tgroup("", *columns, nodes.thead("", nodes.row("", *heading)), body, cols=3)
        return [nodes.table("", group, classes=["cpm-files"])]


@cache
def _owners(page: Path, changed: float) -> dict[tuple[str, str], str]:
    """The id of the entry of each (origin, name): that in the first module of the page that offers it.

    `changed` is the page's time of change.
    """
    found: dict[tuple[str, str], str] = {}
    directives = re.findall(r"^```\{api\} (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    for module in " ".join(directives).split():
        for entry in library.public(module):
            found.setdefault((entry.origin, entry.name), entry.full_name)
    return found


def _kind(node: library.Definition) -> str:
    kinds: dict[type, str] = {ast.FunctionDef: "function", ast.ClassDef: "class", ast.Module: "module"}
    return kinds.get(type(node), "data")


def _signature(node: library.Definition, name: str, prefix: str, kind: str) -> addnodes.desc_signature:
    signature = addnodes.desc_signature(name, "")
    if kind in ("class", "property", "module"):
        signature += addnodes.desc_annotation("", kind + " ")
    signature += [addnodes.desc_addname("", prefix)] if prefix else []
    signature += addnodes.desc_name("", name)
    if isinstance(node, ast.Assign | ast.AnnAssign):
        value = ast.unparse(node.value) if node.value else ""
        short = value if len(value) <= LONGEST else "…"
        signature += addnodes.desc_annotation("", f" = {short}")
        return signature
    function = node if isinstance(node, ast.FunctionDef) else _constructor(node)  # of a module: none
    if function is None or kind == "property":
        return signature
    parameters = _parameters(function.args)
    brackets = addnodes.desc_parameterlist(
        "", "", *(addnodes.desc_parameter("", "", nodes.Text(p)) for p in parameters)
    )
    signature += brackets
    if isinstance(node, ast.FunctionDef) and node.returns is not None:
        signature += addnodes.desc_returns("", ast.unparse(node.returns))
    return signature


def _constructor(node: ast.ClassDef | ast.Module) -> ast.FunctionDef | None:
    return next((one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__"), None)


def _parameters(arguments: ast.arguments) -> list[str]:
    """Each parameter as it stands in the source, without `self`, with the signs / and * between them."""
    text = ast.unparse(ast.FunctionDef("f", arguments, [ast.Pass()], [], lineno=0, type_params=[]))
    found: list[str] = []
    depth = 0
    for sign in text.splitlines()[0][len("def f(") : -len("):")]:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            found.append("")
        else:
            found = [*(found or [""])[:-1], (found or [""])[-1] + sign]
    return [one.strip() for one in found if one.strip() not in ("", "self", "cls")]


def _source_link(page: str, module: str, line: int, text: str = "source") -> list[nodes.Node]:
    path = library.file_of(module).relative_to(library.root()).as_posix()
    link = nodes.reference("", "", nodes.literal("", text) if text != "source" else nodes.Text(text))
    link["refuri"] = f"{'../' * page.count('/')}source/{path}.html#line-{line}"
    link["internal"] = True
    return [nodes.inline("", "", link, classes=["cpm-source"])]


def write_sources(app: Sphinx, exception: Exception | None) -> None:
    """A page for each file of the library, with numbered lines that links can lead to."""
    if exception is not None or app.builder.format != "html":
        return
    formatters = {
        scheme: HtmlFormatter(style=f"a11y-high-contrast-{scheme}", linenos="inline", lineanchors="line")
        for scheme in ("light", "dark")
    }
    styles = {scheme: formatter.get_style_defs(".highlight") for scheme, formatter in formatters.items()}
    for module in (*library.packages(), *library.modules()):
        source = library.file_of(module)
        path = source.relative_to(library.root()).as_posix()
        target = Path(app.outdir, "source", f"{path}.html")
        if target.exists() and target.stat().st_mtime > source.stat().st_mtime:
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        code = highlight(source.read_text(encoding="utf-8"), PythonLexer(), formatters["light"])
        # Long lines scroll, with the keyboard too.
        code = code.replace("<pre>", '<pre tabindex="0">', 1)
        back = "../" * (path.count("/") + 1) + "book/api.html"
        target.write_text(PAGE.format(path=path, back=back, code=code, **styles), encoding="utf-8")


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("api", Api)
    app.add_directive("files", Files)
    app.connect("build-finished", write_sources)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
