"""Settings of all tests, and what several of them need."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from playwright.sync_api import Browser, sync_playwright

from book import browser as browsers

# Progress bars would end up in compared outputs; kernels of notebooks inherit the variable.
os.environ.setdefault("CPM_PROGRESS", "0")

# Before torch is imported: sums of two threads round otherwise, and tests must not depend on the machine's cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples each time, and no limit on time: the machine may be busy with something else.
settings.register_profile("repeatable", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("repeatable")


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def bccd() -> Path:
    """The folder with BCCD's Annotations, ImageSets and JPEGImages: real photographs."""
    wish = os.environ.get("CPM_BCCD")
    if not wish:
        pytest.skip("CPM_BCCD does not say where the BCCD photographs are")
    for folder in (Path(wish), Path(wish) / "BCCD"):
        if (folder / "JPEGImages").is_dir():
            return folder
    pytest.skip(f"CPM_BCCD={wish} holds no JPEGImages")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One for the book and the explorers, as there can be only one in a process."""
    path = browsers.find()
    if path is None:
        pytest.skip("no Chromium: install one, or set CPM_CHROMIUM")
    with sync_playwright() as playwright:
        # Without sandbox and shared memory it runs in containers too; it only sees our own pages.
        options = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"]
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()
