"""Make or refresh the virtual environment `.venv`, and nothing if it is up to date.

Runs on the system's Python with the standard library only, before anything is installed.
uv does the work where it is on PATH, else venv and pip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / ".cpm-setup"
"""Holds the key of the last complete set-up; written last, so that a broken one is repeated."""

REQUIREMENTS = ["--editable", ".[book,dev]", "--constraint", "constraints.txt"]


def key() -> str:
    """What the environment depends on. The folder too: scripts inside .venv hold absolute paths."""
    digest = hashlib.sha256(f"{ROOT} {sys.version_info[:2]}".encode())
    for name in ("pyproject.toml", "constraints.txt"):
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()


def is_current() -> bool:
    return PYTHON.exists() and STAMP.exists() and STAMP.read_text() == key()


def call(*command: str | Path) -> bool:
    return subprocess.run([str(part) for part in command], cwd=ROOT).returncode == 0


def with_uv(uv: str) -> bool:
    # Seeded with pip, so that `pip install` inside the environment works as people expect.
    made = PYTHON.exists() or call(uv, "venv", "--seed", "--quiet", "--python", sys.executable, VENV)
    return made and call(uv, "pip", "install", "--python", PYTHON, *REQUIREMENTS)


def with_pip() -> bool:
    if not call(sys.executable, "-m", "venv", VENV):
        print(
            "Python cannot make a virtual environment: install uv or Python's venv (Debian: apt install python3-venv)."
        )
        return False
    return call(PYTHON, "-m", "pip", "install", "--disable-pip-version-check", *REQUIREMENTS)


def main() -> int:
    if is_current():
        return 0
    began = time.monotonic()
    uv = shutil.which("uv")
    size = "" if PYTHON.exists() else ", the first time about 3 GB to download and 6 GB on disk: 3 to 10 minutes"
    print(f"Setting up .venv with {'uv' if uv else 'pip'}{size}.", flush=True)
    done = with_uv(uv) if uv else with_pip()
    if uv and not done:
        # pip knows proxies, certificates and package mirrors from settings that uv does not read.
        print("uv did not succeed; trying again with pip.", flush=True)
        done = with_pip()
    if not done:
        print("Set-up failed, see the lines above; the next `make` tries again.")
        return 2
    STAMP.write_text(key())
    print(f"Environment ready in .venv after {time.monotonic() - began:.0f} s.", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
