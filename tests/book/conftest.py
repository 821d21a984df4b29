"""The rendered book, served on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

SOURCE = "source/cpm_lib/boxes.py.html"


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Requests are no news in a test."""


@pytest.fixture(scope="session")
def html(root: Path) -> Path:
    folder = Path(os.environ.get("CPM_BOOK_HTML", root / "_build/smoke/html")).resolve()
    if not (folder / "index.html").exists():
        pytest.skip("the book is not built: run `book/build.py --profile smoke`, or `make test`")
    return folder


@pytest.fixture(scope="session")
def all_pages(html: Path) -> list[str]:
    """All pages, relative to the book."""
    return [path.relative_to(html).as_posix() for path in sorted(html.rglob("*.html")) if "_static" not in path.parts]


@pytest.fixture(scope="session")
def pages(all_pages: list[str]) -> list[str]:
    """Those that readers stay on; one stands for the many sources of the library, which are all made alike."""
    found = [name for name in all_pages if not name.startswith("source/") or name == SOURCE]
    found.remove("index.html")  # It leads on to the cover at once, and has a test of its own.
    assert len(found) > 3
    return found


@pytest.fixture(scope="session")
def site(html: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=html))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
