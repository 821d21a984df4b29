"""The rendered book in a browser: complete without a network, without errors, usable by everyone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, Response

WIDE, NARROW = {"width": 1280, "height": 900}, {"width": 390, "height": 800}
HASH = re.compile(r"[0-9a-f]{32,}")


def content(pages: list[str]) -> list[str]:
    """Pages written by us; the others are made by Sphinx."""
    return [page for page in pages if "/" in page]


def open_page(page: Page, address: str) -> None:
    page.goto(address, wait_until="load")
    # Formulas are typeset after loading.
    page.wait_for_function(
        "!window.MathJax || !MathJax.startup || !MathJax.startup.promise || MathJax.startup.promise.then(() => true)"
    )


def watch(page: Page, name: str, base: str, faults: list[str]) -> None:
    """Note whatever goes wrong while the page is open."""

    def request(event: Request) -> None:
        if not event.url.startswith((base, "data:", "blob:")):
            faults.append(f"{name} asks for {event.url}")

    def response(event: Response) -> None:
        if event.status >= 400:
            faults.append(f"{name}: {event.status} for {event.url}")

    def console(event: ConsoleMessage) -> None:
        if event.type == "error":
            faults.append(f"{name}: {event.text}")

    page.on("request", request)
    page.on("response", response)
    page.on("console", console)
    page.on("requestfailed", lambda event: faults.append(f"{name} lacks {event.url}"))
    page.on("pageerror", lambda event: faults.append(f"{name}: {event}"))


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_pages_load_without_errors_and_without_the_internet(
    browser: Browser, html: Path, site: str, pages: list[str], scheme: str
) -> None:
    base = site if scheme == "http" else html.as_uri()
    faults: list[str] = []
    context = browser.new_context(viewport=WIDE)
    for name in pages:
        page = context.new_page()
        watch(page, name, base, faults)
        open_page(page, f"{base}/{name}")
        page.close()
    context.close()
    assert not faults


def test_search_finds_a_word(browser: Browser, site: str) -> None:
    page = browser.new_page()
    page.goto(f"{site}/search.html?q=heatmap")
    page.wait_for_selector("#search-results li")
    page.close()


def test_formulas_are_typeset(browser: Browser, site: str, pages: list[str]) -> None:
    page, formulas = browser.new_page(), 0
    for name in content(pages):
        open_page(page, f"{site}/{name}")
        wanted, done = page.locator(".math").count(), page.locator(".math mjx-container").count()
        assert done == wanted, f"{name}: {done} of {wanted} formulas are typeset"
        formulas += done
    page.close()
    assert formulas


def test_pictures_are_shown_and_described(browser: Browser, site: str, pages: list[str]) -> None:
    page, faults = browser.new_page(), []
    for name in content(pages):
        open_page(page, f"{site}/{name}")
        for picture in page.locator("main img").all():
            picture.scroll_into_view_if_needed() if picture.is_visible() else None
            text, source = picture.get_attribute("alt") or "", (picture.get_attribute("src") or "")[:80]
            if len(text) < 3 or HASH.search(text):
                faults.append(f"{name}: {source} has no alternative text")
            if not picture.evaluate("element => element.decode().then(() => element.naturalWidth > 0, () => false)"):
                faults.append(f"{name}: {source} is not shown")
    page.close()
    assert not faults


@pytest.mark.parametrize("size", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_widens_the_page(browser: Browser, site: str, pages: list[str], size: Any) -> None:
    page = browser.new_page(viewport=size)
    for name in content(pages):
        open_page(page, f"{site}/{name}")
        excess = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert excess <= 0, f"{name} is {excess} px wider than the window"
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_for_people_with_disabilities(
    browser: Browser, site: str, pages: list[str], scheme: Any
) -> None:
    context = browser.new_context(color_scheme=scheme, viewport=WIDE)
    page, faults = context.new_page(), []
    for name in content(pages):
        open_page(page, f"{site}/{name}")
        assert page.locator("html").get_attribute("data-theme") == scheme
        for fault in Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                where = [target for node in fault["nodes"] for target in node["target"]]
                faults.append(f"{name}: {fault['id']} at {where[:3]}: {fault['help']}")
    context.close()
    assert not faults
