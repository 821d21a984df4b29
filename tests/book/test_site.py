"""The rendered book in a browser: complete without a network, without errors, usable by everyone."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book.visits import WIDTHS, Visit, answers, visit_all, watch, write_remote_urls

MOST_BYTES = 3_000_000


class Site:
    """What holds for every page; a class for each colour scheme."""

    scheme: str

    @pytest.fixture(scope="class")
    @classmethod
    def visits(cls, browser: Browser, html: Path, site: str, pages: list[str], root: Path) -> list[Visit]:
        """What a visit to each page found: light pages come from a server, dark ones from the disk."""
        screens = root / "_build/test/screens"
        screens.mkdir(parents=True, exist_ok=True)
        for old in screens.glob(f"*-{cls.scheme}-*.png"):
            old.unlink()
        base = site if cls.scheme == "light" else html.as_uri()
        found = list(visit_all(browser, base, pages, cls.scheme, screens))
        write_remote_urls(root / "_build/test", cls.scheme, found)
        return found

    def test_no_page_asks_for_anything_from_elsewhere(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {address}" for visit in visits for address in visit.foreign]

    def test_pages_load_without_errors(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {error}" for visit in visits for error in visit.errors]

    def test_pages_are_light(self, visits: list[Visit]) -> None:
        heavy = {visit.name: visit.size for visit in visits if visit.size > MOST_BYTES}
        assert not heavy, f"at most {MOST_BYTES} bytes of everything that a page loads"
        if self.scheme == "light":
            assert all(visit.size > 100_000 for visit in visits if "notebooks/" in visit.name), "no sizes are told"

    def test_pages_take_the_colours_of_the_system(self, visits: list[Visit]) -> None:
        themes = [visit.theme for visit in visits if visit.theme is not None]
        assert set(themes) == {self.scheme}
        assert len(themes) > 3

    def test_formulas_are_typeset(self, visits: list[Visit]) -> None:
        for visit in visits:
            wanted, done = visit.formulas
            assert done == wanted, f"{visit.name}: {done} of {wanted} formulas are typeset"
        assert any(visit.formulas[0] for visit in visits)

    def test_pictures_are_shown_and_described(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {fault}" for visit in visits for fault in visit.pictures]

    @pytest.mark.parametrize("width", WIDTHS)
    def test_nothing_widens_the_page(self, visits: list[Visit], width: int) -> None:
        wide = {visit.name: visit.excess[width] for visit in visits if visit.written and visit.excess[width] > 0}
        assert not wide, "pixels beyond the window"

    def test_figures_are_legible_on_a_phone(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {fault}" for visit in visits for fault in visit.figures]

    def test_every_explorer_answers(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {fault}" for visit in visits for fault in visit.silent]
        assert next(visit for visit in visits if visit.name == "book/index.html").explorers, "the cover has none"

    def test_no_serious_fault_for_people_with_disabilities(self, visits: list[Visit]) -> None:
        assert not [f"{visit.name}: {fault}" for visit in visits for fault in visit.barriers]


class TestLight(Site):
    scheme = "light"


class TestDark(Site):
    scheme = "dark"


@pytest.fixture(params=["server", "disk"])
def base(request: pytest.FixtureRequest, html: Path, site: str) -> str:
    """Where the book is."""
    return site if request.param == "server" else html.as_uri()


def test_search_finds_a_word(browser: Browser, base: str) -> None:
    visit, page = Visit("search.html"), browser.new_page()
    watch(page, base, visit)
    page.goto(f"{base}/search.html?q=heatmap")
    page.wait_for_selector("#search-results li")
    # The summary is written when all results are there.
    page.wait_for_function("/\\d/.test(document.querySelector('#search-results .search-summary').textContent)")
    page.close()
    assert not visit.errors + visit.foreign


def test_the_first_page_leads_to_the_cover(browser: Browser, base: str) -> None:
    visit, page = Visit("index.html"), browser.new_page()
    watch(page, base, visit)
    page.goto(f"{base}/index.html")
    page.wait_for_url(f"{base}/book/index.html")
    page.close()
    assert not visit.errors + visit.foreign


def test_the_book_works_from_disk_with_the_network_off(browser: Browser, html: Path, pages: list[str]) -> None:
    chapter = next(name for name in pages if "notebooks/" in name and "cpm-explorer" in (html / name).read_text())
    context = browser.new_context(offline=True)
    for name in ("book/index.html", chapter):
        visit, page = Visit(name), context.new_page()
        watch(page, html.as_uri(), visit)
        page.goto(f"{html.as_uri()}/{name}", wait_until="load")
        assert not page.evaluate("navigator.onLine")
        root = page.locator(".cpm-explorer").first
        assert any(answers(root, control) for control in root.locator("input, button, [role=slider]").all())
        assert not visit.errors + visit.foreign
    context.close()
