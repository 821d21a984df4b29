"""Every link inside the book leads somewhere, down to the anchor."""

from __future__ import annotations

import re
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest


class Targets(HTMLParser):
    """Collects the links of a page, and the anchors it offers."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            if name in ("href", "src") and value:
                self.links.add(value)
            elif name == "id" and value:
                self.anchors.add(value)
            elif name == "content" and value and value.startswith("0; url="):
                self.links.add(value.removeprefix("0; url="))


@pytest.fixture(scope="module")
def parsed(html: Path, all_pages: list[str]) -> dict[Path, Targets]:
    written = [page for page in all_pages if not page.startswith("source/")]
    return {html / page: Targets((html / page).read_text(encoding="utf-8")) for page in written}


@cache
def source_anchors(page: Path) -> set[str]:
    """Anchors of a source of the library: too many and too large for the parser."""
    return set(re.findall(r'id="([^"]+)"', page.read_text(encoding="utf-8")))


def test_internal_links_and_anchors_exist(html: Path, parsed: dict[Path, Targets]) -> None:
    broken = []
    for page, targets in parsed.items():
        for link in targets.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            if not target.is_file():
                broken.append(f"{page.relative_to(html)}: {link}")
            elif parts.fragment and target.suffix == ".html":
                anchors = parsed[target].anchors if target in parsed else source_anchors(target)
                if unquote(parts.fragment) in anchors:
                    continue
                broken.append(f"{page.relative_to(html)}: no anchor {link}")
    assert not broken


def test_every_page_can_be_reached_from_the_cover(
    html: Path, parsed: dict[Path, Targets], all_pages: list[str]
) -> None:
    seen, waiting = set(), [html / "index.html"]
    while waiting:
        page = waiting.pop()
        if page in parsed and page not in seen:
            seen.add(page)
            waiting += [(page.parent / urlsplit(link).path).resolve() for link in parsed[page].links]
    # The index of terms is linked by nothing in this theme.
    assert {page for page in parsed if page.name != "genindex.html"} == seen - {html / "genindex.html"}
    linked = {(page.parent / urlsplit(link).path).resolve() for page in seen for link in parsed[page].links}
    assert {html / page for page in all_pages if page.startswith("source/")} <= linked
