"""One visit to each page of the rendered book, in which everything is measured that the tests ask about.

Loading a page is what takes time, so each is loaded once per colour scheme and not once per question.
"""

from __future__ import annotations

import fcntl
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Locator, Page, Request, Response

WIDTHS = (1440, 360)
HEIGHT = 900
LEGIBLE = 0.6
"""Of a figure's own size: its words, drawn 14 pixels high, must not get smaller than 8."""
HASH = re.compile(r"[0-9a-f]{32,}")

_TYPESET = "!window.MathJax || !MathJax.startup || !MathJax.startup.promise || MathJax.startup.promise.then(() => true)"
_BYTES = """() => [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")]
    .reduce((sum, entry) => sum + (entry.encodedBodySize || 0), 0)"""
_EXCESS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
_PICTURES = """() => Promise.all([...document.querySelectorAll("main img")].map(async (picture) => {
    picture.loading = "eager";
    const shown = await picture.decode().then(() => picture.naturalWidth > 0, () => false);
    return [(picture.getAttribute("src") || "").slice(0, 80), picture.getAttribute("alt") || "", shown];
}))"""
# How wide the figures are shown, of their own width, and whether the keyboard reaches what must be scrolled to be seen.
_FIGURES = """() => [...document.querySelectorAll("main figure:has(> img)")].map((box) => {
    const [picture, reach] = [box.querySelector("img"), box.scrollWidth - box.clientWidth];
    box.scrollLeft = 9;
    const reached = reach <= 0 || (box.tabIndex === 0 && box.scrollLeft > 0);
    box.scrollLeft = 0;
    return [picture.getAttribute("src"), box.scrollWidth / picture.naturalWidth, reached];
})"""
# What a reader sees of an explorer: its words and its drawings, but not the control that the key was for.
_SEEN = """(root) => root.innerText + [...root.querySelectorAll("svg, table")].map((node) => node.outerHTML).join("")"""
# The first of many elements that are alike stand for all: contrast is slow to judge on thousands of them.
_SHORTEN = """() => {
    const seen = {};
    const count = (kind) => (seen[kind] = (seen[kind] || 0) + 1);
    for (const word of document.querySelectorAll("pre span")) {
        if (count(word.className) > 3) word.replaceWith(word.textContent);
    }
    const name = (node) => `${node.tagName} ${node.className}`;
    for (const node of document.querySelectorAll("main article *:not(a *)")) {
        if (node.isConnected && count(`${name(node.parentElement)} ${name(node)}`) > 25) node.remove();
    }
    // Lines have lost their bold letters, so the page looks again which of them scroll.
    dispatchEvent(new Event("resize"));
}"""
# After two frames the layout is that of the window's new size, and what observes it has run.
_SETTLED = "() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))"
# It stays in the window and would lie over the picture.
_NO_HEADER = ".bd-header-article, .bd-header-announcement { visibility: hidden !important; }"
_KEYS = {"button": (" ",), "checkbox": (" ",)}
_ARROWS = ("ArrowRight", "ArrowLeft", "ArrowDown", "ArrowUp")


@dataclass
class Visit:
    """What was found on one page; texts are faults, so that empty lists are good.

    Attributes:
        theme: the colours that the page chose.
        size: bytes of everything that the page loaded; 0 where the browser does not tell (files).
        excess: by window width, by how many pixels the page is wider than the window.
        figures: those that are too small to read in a narrow window, or that cannot be scrolled there.
        formulas: (in the page, typeset).
        explorers: their number.
    """

    name: str
    theme: str | None = None
    size: int = 0
    excess: dict[int, int] = field(default_factory=dict)
    formulas: tuple[int, int] = (0, 0)
    explorers: int = 0
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    pictures: list[str] = field(default_factory=list)
    figures: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    barriers: list[str] = field(default_factory=list)

    @property
    def written(self) -> bool:
        """Whether we wrote it; the others are made by Sphinx."""
        return "/" in self.name


def visit_all(browser: Browser, base: str, names: Sequence[str], scheme: Any, screens: Path) -> Iterator[Visit]:
    """Visit each page of the site `base`, with `scheme` light or dark.

    Args:
        screens: folder for pictures of the explorers before and after they were moved.
    """
    context = browser.new_context(color_scheme=scheme, viewport={"width": WIDTHS[0], "height": HEIGHT})
    # One page for all, as a new one takes longer than most chapters to load.
    page = context.new_page()
    for name in names:
        visit = Visit(name)
        page.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
        unwatch = watch(page, base, visit)
        page.goto(f"{base}/{name}", wait_until="load")
        page.wait_for_function(_TYPESET)
        visit.theme = page.locator("html").get_attribute("data-theme")
        visit.formulas = (page.locator(".math").count(), page.locator(".math mjx-container").count())
        if visit.written:
            visit.pictures = [fault for fault in map(_picture_fault, page.evaluate(_PICTURES)) if fault]
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": HEIGHT})
            visit.excess[width] = page.evaluate(_EXCESS)
            if width == min(WIDTHS):
                page.evaluate(_SETTLED)
                visit.figures = [fault for fault in map(_figure_fault, page.evaluate(_FIGURES)) if fault]
            # Each width is photographed once, in another scheme.
            photograph = (width == WIDTHS[0]) == (scheme == "light")
            stem = screens / f"{name.rpartition('/')[2].removesuffix('.html')}-{scheme}-{width}"
            _try_explorers(page, visit, stem if photograph else None)
        visit.size = page.evaluate(_BYTES)
        if visit.written:
            visit.barriers = _barriers(page, WIDTHS[scheme == "dark"])
        unwatch()
        yield visit
    context.close()


def write_remote_urls(folder: Path, scheme: str, visits: Sequence[Visit]) -> None:
    """Write every address outside the book that a page asked for to ``remote_urls.txt``, one a line; it is empty if
    there is none. The schemes may be visited in processes of their own: each has a file, the list is of both."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "remote_urls.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = sorted({address for visit in visits for address in visit.foreign})
        (folder / f"remote_urls-{scheme}.txt").write_text("".join(f"{address}\n" for address in found))
        lines = {line for path in folder.glob("remote_urls-*.txt") for line in path.read_text().splitlines()}
        (folder / "remote_urls.txt").write_text("".join(f"{line}\n" for line in sorted(lines)))


def watch(page: Page, base: str, visit: Visit) -> Callable[[], None]:
    """Note in `visit` what goes wrong on the page and what it asks for beside the site `base`, until the result is
    called."""

    def request(event: Request) -> None:
        if not event.url.startswith((base, "data:", "blob:")):
            visit.foreign.append(event.url)

    def response(event: Response) -> None:
        if event.status >= 400:
            visit.errors.append(f"{event.status} for {event.url}")

    def console(event: ConsoleMessage) -> None:
        if event.type == "error":
            visit.errors.append(event.text)

    listeners = {
        "request": request,
        "response": response,
        "console": console,
        "requestfailed": lambda event: visit.errors.append(f"lacks {event.url}"),
        "pageerror": lambda event: visit.errors.append(str(event)),
    }
    return listen(page, listeners)


def listen(page: Page, listeners: Mapping[Any, Callable[[Any], None]]) -> Callable[[], None]:
    """Call each of `listeners` at the page's events of its name, until the result is called."""
    for event, listener in listeners.items():
        page.on(event, listener)

    def stop() -> None:
        for event, listener in listeners.items():
            page.remove_listener(event, listener)

    return stop


def _picture_fault(picture: tuple[str, str, bool]) -> str:
    source, words, shown = picture
    if len(words) < 3 or HASH.search(words):
        return f"{source} has no alternative text"
    return "" if shown else f"{source} is not shown"


def _figure_fault(figure: tuple[str, float, bool]) -> str:
    source, share, reached = figure
    if share < LEGIBLE:
        return f"{source} is shown at {share:.0%} of its width"
    return "" if reached else f"{source} cannot be scrolled with the keyboard"


def _barriers(page: Page, width: int) -> list[str]:
    """Serious faults for people with disabilities; the page is shortened for it."""
    page.set_viewport_size({"width": width, "height": HEIGHT})
    page.evaluate(_SETTLED)
    page.evaluate(_SHORTEN)
    page.evaluate(_SETTLED)
    # Without preload, by which it would fetch the style sheets once more.
    options = {"resultTypes": ["violations"], "preload": False}
    found = Axe().run(page, options=options).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    places = [[target for node in fault["nodes"] for target in node["target"]] for fault in serious]
    return [f"{fault['id']} at {where[:3]}: {fault['help']}" for fault, where in zip(serious, places, strict=True)]


def _try_explorers(page: Page, visit: Visit, stem: Path | None) -> None:
    """Every explorer has started, its still picture is gone, and some control of it answers the keyboard."""
    roots = page.locator(".cpm-explorer").all()
    visit.explorers = len(roots)
    for number, root in enumerate(roots, start=1):
        who = f"{root.get_attribute('data-name')} ({page.viewport_size['width']} px)" if page.viewport_size else ""
        if not root.evaluate("(root) => Boolean(root.cpm)"):
            visit.silent.append(f"{who} has not started")
            continue
        if root.locator(".cpm-still").count():
            visit.silent.append(f"{who} still shows its still picture")
        shot = f"{stem}-{number}-{root.get_attribute('data-name')}" if stem else ""
        if shot:
            root.screenshot(path=f"{shot}-before.png", style=_NO_HEADER)
        if not any(answers(root, control) for control in root.locator("input, button, [role=slider]").all()):
            visit.silent.append(f"{who} does not answer the keyboard")
        if shot:
            root.screenshot(path=f"{shot}-after.png", style=_NO_HEADER)


def answers(root: Locator, control: Locator) -> bool:
    """Whether a key on the focused control changes what the explorer shows."""
    if not control.is_enabled():
        return False
    control.focus()
    kind = control.evaluate("(node) => node.tagName === 'BUTTON' ? 'button' : node.type || 'slider'")
    before = root.evaluate(_SEEN)
    for key in _KEYS.get(kind, _ARROWS):
        control.press(key)
        if root.evaluate(_SEEN) != before:
            return True
    return False
