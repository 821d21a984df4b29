"""Find a Chromium for the tests of the book; as a script, install one if there is none.

Looked at in turn: the variable CPM_CHROMIUM, the programs on PATH, Playwright's own copy.
Installed, if none is found: Playwright's copy, then the package of the distribution.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")


def works(path: str | Path) -> bool:
    """Whether the program starts: a copy without its system libraries does not."""
    try:
        answer = subprocess.run([str(path), "--version"], capture_output=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0


def playwrights_own() -> str | None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def find() -> str | None:
    """Path of a Chromium that starts, or None.

    Raises:
        RuntimeError: CPM_CHROMIUM names a program that does not start.
    """
    wish = os.environ.get("CPM_CHROMIUM")
    if wish:
        if not works(wish):
            raise RuntimeError(f"CPM_CHROMIUM={wish} does not start: correct it or unset it")
        return wish
    for name in NAMES:
        path = shutil.which(name)
        if path and works(path):
            return path
    path = playwrights_own()
    return path if path and works(path) else None


def install() -> None:
    """Try the two sources in turn; whether it helped, `find` tells."""
    print("No browser found: trying Playwright's (about 170 MB).", flush=True)
    # Behind a wall the download hangs for minutes by default.
    patience = {"PLAYWRIGHT_DOWNLOAD_CONNECTION_TIMEOUT": "15000", **os.environ}
    command = [sys.executable, "-m", "playwright", "install", "chromium"]
    subprocess.run(command, env=patience, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if find() is None and shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        print("Playwright's is not to be had: installing the distribution's package `chromium`.", flush=True)
        if subprocess.run(["apt-get", "update", "-qq"]).returncode == 0:
            quiet = {"DEBIAN_FRONTEND": "noninteractive", **os.environ}
            subprocess.run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", "chromium"], env=quiet)


def main() -> int:
    try:
        if find() is None:
            install()
            found = find()
            print(
                f"Browser: {found}"
                if found
                else "No browser: install Chromium or set CPM_CHROMIUM; its tests will not run."
            )
    except RuntimeError as error:
        print(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
