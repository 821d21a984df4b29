"""Docstrings of the library as document nodes.

They are plain text: paragraphs, single or double backticks around code, sections such as "Args:" with one indented
entry each, lists with "- ", and indented code. Nothing else is a sign, so that no docstring can be a mistake.
"""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Callable, Iterator
from itertools import groupby

from docutils import nodes

SECTIONS = ("Args", "Returns", "Yields", "Raises", "Attributes")
_CODE = re.compile(r"``(.+?)``|`(.+?)`", re.DOTALL)
_ENTRY = re.compile(r"(\*{0,2}\w[\w, *.]*?): (.*)", re.DOTALL)

Linker = Callable[[str], str | None]
"""The id of the entry that documents a name, or None."""


def convert(text: str, link: Linker = lambda name: None) -> list[nodes.Element]:
    """The nodes of a docstring; `link` finds the target of a name in backticks."""
    found: list[nodes.Element] = []
    for block in _blocks(inspect.cleandoc(text)) if text.strip() else ():
        heading, _, rest = block.partition("\n")
        if heading.rstrip(":") in SECTIONS and heading.endswith(":"):
            found.append(_section(heading.rstrip(":"), inspect.cleandoc("\n" + rest), link))
        elif block.startswith("    ") or _is_code(block):
            found.append(nodes.literal_block(block, inspect.cleandoc("\n" + block), language="python"))
        elif re.match(r"- ", block):
            items = [nodes.list_item("", _paragraph(item, link)) for item in _items(block)]
            found.append(nodes.bullet_list("", *items))
        else:
            found.append(_paragraph(block, link))
    return found


def first_sentence(text: str) -> str:
    """The first sentence of a docstring, on one line."""
    summary = " ".join(inspect.cleandoc(text).split("\n\n")[0].split())
    return re.split(r"(?<=[.;])\s", summary)[0].rstrip(".;")


def inline(text: str, link: Linker = lambda name: None) -> list[nodes.Node]:
    """Text with code where backticks are."""
    parts: list[nodes.Node] = []
    end = 0
    for match in _CODE.finditer(text):
        code = " ".join((match[1] or match[2]).split())
        target = link(code.removesuffix("()"))
        literal = nodes.literal(code, code)
        parts += [nodes.Text(text[end : match.start()])] if match.start() > end else []
        parts.append(nodes.reference("", "", literal, refid=target, internal=True) if target else literal)
        end = match.end()
    return [*parts, nodes.Text(text[end:])] if end < len(text) else parts


def _is_code(block: str) -> bool:
    """Whether lines that are not indented are Python all the same: assignments below each other."""
    try:
        return all(isinstance(node, ast.Assign) for node in ast.parse(block).body)
    except SyntaxError:
        return False


def _blocks(text: str) -> Iterator[str]:
    """Paragraphs; a section keeps what is indented below it, and a list begins a paragraph of its own."""
    pieces: list[str] = []
    for piece in re.split(r"\n\s*\n", text):
        # What follows a section with an empty line between, but indented, still belongs to it.
        if pieces and piece.startswith("    ") and pieces[-1].split("\n")[0].rstrip(":") in SECTIONS:
            pieces[-1] += f"\n\n{piece}"
        else:
            pieces.append(piece)
    for piece in pieces:
        lines = piece.split("\n")
        start = next((n for n, line in enumerate(lines) if line.startswith("- ")), None)
        if start and not piece.startswith(" "):
            yield "\n".join(lines[:start])
            yield "\n".join(lines[start:])
        else:
            yield piece


def _items(block: str) -> list[str]:
    """The items of a list or of a section: a line that is not indented begins one."""
    number, numbered = 0, []
    for line in block.split("\n"):
        number += bool(line.strip()) and not line.startswith(" ")
        numbered.append((number, line.strip()))
    texts = (" ".join(line for _, line in group) for _, group in groupby(numbered, key=lambda pair: pair[0]))
    return [text.removeprefix("- ").strip() for text in texts]


def _section(title: str, body: str, link: Linker) -> nodes.Element:
    names = {"Args": "Arguments"}
    entries = [_ENTRY.fullmatch(item) for item in _items(body)]
    content: list[nodes.Element] = []
    if entries and all(entries) and title != "Returns":
        for entry in entries:
            assert entry is not None
            words = nodes.paragraph(
                "", "", nodes.literal(entry[1], entry[1]), nodes.Text(": "), *inline(entry[2], link)
            )
            content.append(nodes.list_item("", words))
        content = [nodes.bullet_list("", *content)]
    else:
        content = convert(body, link)
    field = nodes.field("", nodes.field_name("", names.get(title, title)), nodes.field_body("", *content))
    return nodes.field_list("", field)


def _paragraph(text: str, link: Linker) -> nodes.paragraph:
    return nodes.paragraph("", "", *inline(" ".join(text.split()), link))
