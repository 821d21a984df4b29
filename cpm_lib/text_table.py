"""Tables of words for the pages of the book; on a narrow screen each row becomes a card."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

_CODE = re.compile(r"`([^`]+)`")
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+)\)")
_SOURCE = re.compile(r"\.(ipynb|md)(?=#|$)")
_BREAK = re.compile(r"(::|[._/])(?=\w)")
_STYLE = """<style>
.cpm-words table {width: 100%; font-size: 0.88em;}
.bd-content div.cell_output .cpm-words :is(th, td), .cpm-words :is(th, td)
  {text-align: left !important; vertical-align: top; padding: 0.4rem 0.6rem; overflow-wrap: break-word;}
.cpm-words tbody th {font-weight: 600;}
.cpm-words tbody tr {border-bottom: 1px solid var(--pst-color-border, #88888866);}
.cpm-words code {color: inherit;}
.cpm-words .line {display: block; padding-left: 1em; text-indent: -1em;}
@media (max-width: 700px) {
  .cpm-words :is(table, tbody, tr, td, caption), .cpm-words tbody th {display: block;}
  .cpm-words thead {display: none;}
  .cpm-words td::before {content: attr(data-head); display: block; font-size: 0.85em; font-style: italic;}
  .cpm-words tbody tr {padding: 0.5rem 0;}
}
</style>"""


@dataclass(frozen=True)
class TextTable:
    """A table whose cells are words.

    Attributes:
        header: heading of each column.
        rows: one text per column; the first names the row. A text may hold `code` in backticks, [links](target) and
            line breaks. Targets are sources of the book (``03_cmm.ipynb``), in HTML its pages.
        caption: of the whole table.
        widths: of the columns in per cent; empty leaves them to the browser.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    caption: str = ""
    widths: Sequence[int] = ()

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{html.escape(name)}</th>' for name in self.header)
        lines = []
        for row in self.rows:
            cells = [f'<th scope="row">{_html(row[0])}</th>']
            for name, cell in zip(self.header[1:], row[1:], strict=True):
                cells.append(f'<td data-head="{html.escape(name)}">{_html(cell)}</td>')
            lines.append(f"<tr>{''.join(cells)}</tr>")
        caption = f"<caption>{_html(self.caption)}</caption>" if self.caption else ""
        columns = "".join(f'<col style="width: {width}%">' for width in self.widths)
        head = f"{caption}<colgroup>{columns}</colgroup><thead><tr>{head}</tr></thead>"
        return f'{_STYLE}<div class="cpm-words"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'

    def _repr_markdown_(self) -> str:
        lines = [self.header, ["---"] * len(self.header), *self.rows]
        table = "\n".join("| " + " | ".join(map(_markdown, line)) + " |" for line in lines)
        return f"{table}\n\n{self.caption}\n" if self.caption else table + "\n"


def _html(text: str) -> str:
    lines = html.escape(text).split("\n")
    text = lines[0] if len(lines) == 1 else "".join(f'<span class="line">{line}</span>' for line in lines)
    # Long names of code may break where a reader would break them.
    text = _CODE.sub(lambda found: "<code>" + _BREAK.sub(r"\1<wbr>", found[1]) + "</code>", text)
    return _LINK.sub(lambda found: f'<a href="{_SOURCE.sub(".html", found[2])}">{found[1]}</a>', text)


def _markdown(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", "<br>")
