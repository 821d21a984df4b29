"""A browser that shows one explorer at a time."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page

from cpm_lib.explorers import Explorer
from tests.book.conftest import browser as browser  # the same fixture


class Shown:
    """An explorer in a browser."""

    def __init__(self, page: Page, root: Locator) -> None:
        self.page, self.root = page, root

    def formula(self, name: str, *arguments: Any) -> Any:
        """What the page's JavaScript computes; arguments and result are plain values."""
        return self.root.evaluate("(root, [name, given]) => root.cpm.formulas[name](...given)", [name, arguments])

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


@pytest.fixture
def show(browser: Any, tmp_path: Path, audited: set[str]) -> Iterator[Callable[..., Shown]]:
    """``show(explorer)``: open it from disk; afterwards no error, no request, and no serious fault may be left."""
    faults: list[str] = []
    contexts, running = [], []

    def opened(explorer: Explorer, **options: Any) -> Shown:
        path = explorer.save(tmp_path / f"{explorer.name}-{len(contexts)}.html")
        context = browser.new_context(**{"viewport": {"width": 1000, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        kind = f"{explorer.name} {sorted(options.items())}"
        if options.get("java_script_enabled", True) and kind not in audited:
            audited.add(kind)
            running.append(page)
        page.on("console", lambda event: faults.append(event.text) if event.type == "error" else None)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("request", lambda event: faults.append(event.url[:80]) if event.url.startswith("http") else None)
        page.goto(path.as_uri())
        return Shown(page, page.locator(".cpm-explorer"))

    yield opened
    for page in running:
        for fault in Axe().run(page).response["violations"]:
            if fault["impact"] in ("serious", "critical"):
                faults.append(f"{fault['id']}: {[node['target'] for node in fault['nodes']][:3]}")
    for context in contexts:
        context.close()
    assert not faults
