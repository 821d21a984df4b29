"""The visits notice what they are there for: a page with every fault, and one with none."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.book.visits import Visit, visit_all, write_remote_urls

EXPLORER = """<div class="cpm-explorer" data-name="{name}"><p class="cpm-numbers">0</p>{still}<label>value
<input type="range"></label><script>
(() => {{
  const root = document.currentScript.closest(".cpm-explorer");
  const numbers = root.querySelector(".cpm-numbers");
  {script}
}})();
</script></div>"""
ANSWERING = "root.querySelector('input').oninput = (event) => (numbers.textContent = event.target.value);"
STARTED = "root.cpm = { formulas: {} };"
PAGE = """<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>Page</title><link rel="icon" href="data:,">
</head><body><main><h1>Page</h1>{body}</main></body></html>"""
PICTURE = "data:image/svg+xml,<svg xmlns='http://www.w3.org/2000/svg' width='9' height='9'/>"


def visited(browser: Browser, folder: Path, body: str) -> Visit:
    (folder / "book").mkdir()
    (folder / "book/page.html").write_text(PAGE.format(body=body))
    [visit] = visit_all(browser, folder.as_uri(), ["book/page.html"], "light", folder / "screens")
    return visit


def test_a_good_page_has_no_fault(browser: Browser, tmp_path: Path) -> None:
    explorer = EXPLORER.format(name="good", still="", script=STARTED + ANSWERING)
    visit = visited(browser, tmp_path, f'{explorer}<img alt="a square" src="{PICTURE}">')
    assert visit.explorers == 1
    assert not visit.errors + visit.foreign + visit.pictures + visit.silent + visit.barriers
    assert set(visit.excess.values()) == {0}
    assert {path.name for path in (tmp_path / "screens").iterdir()} == {
        f"page-light-1440-1-good-{when}.png" for when in ("before", "after")
    }


@pytest.mark.parametrize(
    ("still", "script", "fault"),
    [
        ("", ANSWERING, "has not started"),
        ('<div class="cpm-still">picture</div>', STARTED + ANSWERING, "still picture"),
        ("", STARTED, "does not answer the keyboard"),
    ],
)
def test_a_broken_explorer_is_noticed(browser: Browser, tmp_path: Path, still: str, script: str, fault: str) -> None:
    visit = visited(browser, tmp_path, EXPLORER.format(name="bad", still=still, script=script))
    assert len(visit.silent) == 2, "once for each width"
    assert fault in visit.silent[0]


def test_other_faults_are_noticed(browser: Browser, tmp_path: Path) -> None:
    body = (
        '<img src="gone.png" alt="a square"><img src="' + PICTURE + '">'
        '<p style="width: 500px; color: #bbb">pale and wide</p>'
        '<script>fetch("http://127.0.0.1:9/elsewhere").catch(() => 0); throw new Error("on purpose");</script>'
    )
    visit = visited(browser, tmp_path, body)
    assert visit.foreign == ["http://127.0.0.1:9/elsewhere"]
    assert any("on purpose" in error for error in visit.errors)
    assert [fault[-12:] for fault in visit.pictures] == ["is not shown", "rnative text"]
    assert visit.excess[1440] == 0 < visit.excess[360]
    assert any("contrast" in fault for fault in visit.barriers)


@pytest.mark.parametrize(
    ("box", "picture", "fault"),
    [
        ("", "max-width: 100%", "is shown at 3"),
        ("overflow-x: auto", "", "cannot be scrolled with the keyboard"),
        ('overflow-x: auto" tabindex="0', "", None),
    ],
)
def test_a_figure_that_a_phone_cannot_show_is_noticed(
    browser: Browser, tmp_path: Path, box: str, picture: str, fault: str | None
) -> None:
    wide = PICTURE.replace("width='9'", "width='900'")
    body = f'<figure style="margin: 0; {box}"><img alt="a line" style="{picture}" src="{wide}"></figure>'
    faults = visited(browser, tmp_path, body).figures
    assert len(faults) == bool(fault) and (fault or "") in "".join(faults)


def test_remote_addresses_are_listed_once(tmp_path: Path) -> None:
    one, other = "https://one.test/a.js", "https://other.test/b.css"
    listed = tmp_path / "remote_urls.txt"
    write_remote_urls(tmp_path, "light", [Visit("a.html", foreign=[other, one]), Visit("b.html", foreign=[one])])
    write_remote_urls(tmp_path, "dark", [Visit("a.html", foreign=[one])])
    assert listed.read_text() == f"{one}\n{other}\n"
    write_remote_urls(tmp_path, "light", [Visit("a.html")])
    write_remote_urls(tmp_path, "dark", [Visit("a.html")])
    assert listed.read_text() == ""
