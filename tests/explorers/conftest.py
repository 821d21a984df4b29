"""A browser that shows one explorer at a time."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from matplotlib.figure import Figure
from playwright.sync_api import Browser, Locator, Page

from cpm_lib.explorers import Explorer
from tests.book.visits import listen


class Shown:
    """An explorer in a browser."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page, self.root = page, root

    def formula(self, name: str, *arguments: Any) -> Any:
        """What the page's JavaScript computes; arguments and result are plain values."""
        return self.formulas(name, [arguments])[0]

    def formulas(self, name: str, arguments: Sequence[Sequence[Any]]) -> list[Any]:
        """`formula` for many arguments: one question to the page instead of hundreds."""
        ask = "(root, [name, given]) => given.map((arguments) => root.cpm.formulas[name](...arguments))"
        return self.root.evaluate(ask, [name, arguments])

    @property
    def numbers(self) -> str:
        """The live text beside the picture."""
        return "\n".join(self.root.locator(".cpm-numbers").all_inner_texts())

    def number(self, pattern: str) -> float:
        """The first group of `pattern` in the live text."""
        found = re.search(pattern, self.numbers)
        assert found, f"{pattern} is not in: {self.numbers}"
        return float(found[1].rstrip(".").replace("−", "-"))

    def slide(self, label: str, value: float) -> None:
        """Set a slider as a reader does, by its name."""
        self.root.get_by_label(label, exact=True).fill(str(value))

    def drag(self, label: str, dx: float, dy: float) -> None:
        """Move a handle by pixels of the screen, with the mouse."""
        handle = self.root.get_by_label(label, exact=True)
        handle.scroll_into_view_if_needed()
        box = handle.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + dx / 2, y + dy / 2)
        self.page.mouse.move(x + dx, y + dy)
        self.page.mouse.up()

    def swipe(self, spot: Locator, beside: float, dx: float, dy: float) -> None:
        """Move what is `beside` pixels to the right of the middle of `spot`, with a finger."""
        spot.scroll_into_view_if_needed()
        box = spot.bounding_box()
        assert box
        x, y = box["x"] + box["width"] / 2 + beside, box["y"] + box["height"] / 2
        finger = self.page.context.new_cdp_session(self.page)
        for kind, share in (("touchStart", 0.0), ("touchMove", 0.5), ("touchMove", 1.0), ("touchEnd", None)):
            points = [] if share is None else [{"x": x + share * dx, "y": y + share * dy}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def press(self, label: str, key: str, times: int = 1) -> None:
        """Keys on a handle or a control."""
        for _ in range(times):
            self.root.get_by_label(label, exact=True).press(key)


@pytest.fixture(scope="module")
def audited() -> set[str]:
    """Explorers of this file, with the options of their page, whose faults for people with disabilities are known.

    Once is enough, for it takes longer than most tests; the book's pages are looked at after they were moved.
    """
    return set()


@pytest.fixture(scope="session")
def tabs(browser: Browser) -> Iterator[dict[str, list[Page]]]:
    """Pages of a kind that no test uses at the moment: a new one takes longer than loading a file into it."""
    free: dict[str, list[Page]] = {}
    yield free
    for page in itertools.chain(*free.values()):
        page.context.close()


@pytest.fixture
def show(
    browser: Browser, tabs: dict[str, list[Page]], tmp_path: Path, audited: set[str]
) -> Iterator[Callable[..., Shown]]:
    """``show(explorer)``: open it from disk; afterwards no error, no request, and no serious fault may be left."""
    faults: list[str] = []
    used: list[tuple[str, Page, Callable[[], None]]] = []
    running = []

    def opened(explorer: Explorer, **options: Any) -> Shown:
        scripts = options.get("java_script_enabled", True)
        if scripts:
            # Nobody sees its still picture, and drawing it takes longer than most tests.
            explorer = dataclasses.replace(explorer, still=Figure(figsize=(1, 1)))
        path = explorer.save(tmp_path / f"{explorer.name}-{len(used)}.html")
        kind = str(sorted(options.items()))
        free = tabs.setdefault(kind, [])
        page = free.pop() if free else _new_page(browser, options)
        used.append((kind, page, _listen(page, faults)))
        if scripts and (explorer.name + kind) not in audited:
            audited.add(explorer.name + kind)
            running.append(page)
        page.goto(path.as_uri())
        return Shown(page, page.locator(".cpm-explorer"))

    yield opened
    for page in running:
        for fault in Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                faults.append(f"{fault['id']}: {[node['target'] for node in fault['nodes']][:3]}")
    for kind, page, stop in used:
        stop()
        page.goto("about:blank")
        tabs[kind].append(page)
    assert not faults


def _new_page(browser: Browser, options: dict[str, Any]) -> Page:
    return browser.new_context(**{"viewport": {"width": 1000, "height": 900}, **options}).new_page()


def _listen(page: Page, faults: list[str]) -> Callable[[], None]:
    """Note in `faults` what goes wrong on the page and what it asks for, until the result is called."""
    listeners = {
        "console": lambda event: faults.append(event.text) if event.type == "error" else None,
        "pageerror": lambda error: faults.append(str(error)),
        "request": lambda event: faults.append(event.url[:80]) if event.url.startswith("http") else None,
    }
    return listen(page, listeners)
