"""Execute the chapters and render the book.

The sources are copied to a stage, where executed notebooks take the place of the stored ones (which have no
outputs), and the stage is rendered. A chapter is executed again only when something it depends on has changed.
A finished book replaces the last one; after a failure the last one is still there.

    _build/html          the book, at the size `quick`
    _build/smoke/html    the same at the size `smoke`, for the tests
    _build/stage/PROFILE stage, executed notebooks, state: may be deleted at any time
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import papermill
import yaml
from papermill.exceptions import PapermillExecutionError

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "_build"
PUBLISHED = {"quick": BUILD / "html", "smoke": BUILD / "smoke/html"}
CELL_TIMEOUT = 1800
"""Seconds after which a cell counts as stuck; the longest one trains for about 3 minutes."""

LIBRARY_FILES = {".py", ".js", ".css", ".json", ".safetensors"}
RENDER_SECONDS = 15


def clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


@contextmanager
def ticking(label: str, estimate: float) -> Iterator[None]:
    """Say what is under way: a running clock on a terminal, else a line at each half minute."""
    began, done, live = time.monotonic(), threading.Event(), sys.stdout.isatty()

    def tick() -> None:
        while not done.wait(1 if live else 30):
            text = f"{label}: {clock(time.monotonic() - began)} of about {clock(estimate)}"
            print(f"\r\033[K{text}" if live else text, end="" if live else "\n", flush=True)

    print(f"{label}: about {clock(estimate)}", end="" if live else "\n", flush=True)
    ticker = threading.Thread(target=tick, daemon=True)
    ticker.start()
    try:
        yield
    finally:
        done.set()
        ticker.join()
        took = clock(time.monotonic() - began)
        print(f"\r\033[K{label}: {took}" if live else f"{label}: took {took}", flush=True)


def chapters() -> list[str]:
    """Names of the notebooks in the table of contents, in its order."""
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, list):
            for item in node:
                walk(item)
        elif isinstance(node, dict):
            if str(node.get("file", "")).startswith("notebooks/"):
                found.append(node["file"].removeprefix("notebooks/"))
            walk(list(node.values()))

    walk(yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8")))
    return found


def dependencies(profile: str) -> str:
    """Digest of what every chapter may depend on: the library, the records and checkpoints, the versions."""
    packages = [f"{name} {version(name)}" for name in ("torch", "torchvision", "matplotlib", "papermill")]
    digest = hashlib.sha256("\n".join([profile, platform.python_version(), *packages]).encode())
    for folder in (ROOT / "cpm_lib", ROOT / "data"):
        for path in sorted(folder.rglob("*")):
            if path.suffix in LIBRARY_FILES and not path.is_relative_to(ROOT / "data/cache"):
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def stage_prose(stage: Path) -> bool:
    """Bring the stage up to date with book/; True if Sphinx must start afresh.

    Sphinx notices changed pages itself, but neither pages that are gone nor a changed extension.
    """
    sources = {path: path.relative_to(ROOT) for path in (ROOT / "_config.yml", ROOT / "_toc.yml")}
    for path in sorted((ROOT / "book").rglob("*")):
        relative = path.relative_to(ROOT)
        tool = path.suffix == ".py" and "_ext" not in relative.parts
        if path.is_file() and not tool and "__pycache__" not in relative.parts:
            sources[path] = relative
    afresh = False
    for path, relative in sources.items():
        target = stage / relative
        if not target.exists() or target.read_bytes() != path.read_bytes():
            target.parent.mkdir(parents=True, exist_ok=True)
            # With its time of change, by which Sphinx decides what to read again.
            shutil.copy2(path, target)
            afresh |= path.suffix in {".yml", ".py"}
    wanted = {*sources.values(), *(Path(f"notebooks/{name}.ipynb") for name in chapters())}
    for path in stage.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(stage) not in wanted:
            path.unlink()
            afresh = True
    return afresh


def execute(name: str, profile: str, work: Path) -> None:
    """Run one notebook and put it on the stage.

    Raises:
        PapermillExecutionError: a cell failed; the notebook up to there is kept in `work`/raw.
    """
    raw = work / "raw" / f"{name}.ipynb"
    raw.parent.mkdir(parents=True, exist_ok=True)
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb",
        raw,
        parameters={"profile": profile},
        kernel_name="python3",
        progress_bar=False,
        cwd=ROOT / "notebooks",
        execution_timeout=CELL_TIMEOUT,
        # Errors only: each kernel would warn that it talks to this machine unencrypted.
        extra_arguments=["--log-level=40"],
    )
    notebook = json.loads(raw.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    for number, cell in enumerate(notebook["cells"]):
        # Times and random ids would make every page differ from build to build.
        cell["metadata"].pop("papermill", None)
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            cell["id"] = f"parameters-{number}"
        elif "parameters" in tags:
            # The cell injected below it shows the values that were used.
            tags.append("remove-cell")
    target = work / "src/notebooks" / raw.name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")


def execute_changed(profile: str, work: Path) -> int:
    """Execute the chapters whose dependencies changed; their number."""
    state_file, shared, executed = work / "state.json", dependencies(profile), 0
    state: dict[str, dict[str, Any]] = json.loads(state_file.read_text()) if state_file.exists() else {}
    names = chapters()
    for number, name in enumerate(names, 1):
        source = (ROOT / "notebooks" / f"{name}.ipynb").read_bytes()
        key = hashlib.sha256(shared.encode() + source).hexdigest()
        last = state.get(name, {})
        if last.get("key") == key and (work / "src/notebooks" / f"{name}.ipynb").exists():
            continue
        guess = json.loads(source)["metadata"].get("cpm", {}).get("seconds", {}).get(profile, 30)
        began = time.monotonic()
        with ticking(f"[{number}/{len(names)}] executing {name}", last.get("seconds", guess)):
            execute(name, profile, work)
        state[name] = {"key": key, "seconds": round(time.monotonic() - began, 1)}
        state_file.write_text(json.dumps(state, indent=1))
        executed += 1
    return executed


def render(work: Path) -> bool:
    """Run jupyter-book on the stage; any warning is an error. The log is `work`/render.log."""
    program = Path(sys.executable).with_name("jupyter-book")
    options = ["--path-output", work, "-W", "--keep-going", "-n", "-q"]
    with ticking("rendering", RENDER_SECONDS):
        result = subprocess.run(
            [sys.executable, program, "build", work / "src", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    (work / "render.log").write_text(result.stdout)
    if result.returncode:
        print("\n".join(line for line in result.stdout.splitlines() if "WARNING" in line or "ERROR" in line))
        print(f"The book was not rendered; the whole log is {(work / 'render.log').relative_to(ROOT)}.")
    return result.returncode == 0


def publish(made: Path, target: Path) -> int:
    """Put the rendered book in the place of the last one; the number of its pages."""
    fresh, old = target.with_name("html.new"), target.with_name("html.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(made, fresh)
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return sum(1 for folder in ("book", "notebooks") for _ in (target / folder).glob("*.html"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=sorted(PUBLISHED), default="quick")
    profile = parser.parse_args().profile
    # Kernels inherit it: a progress bar in an output is noise on a page.
    os.environ["CPM_PROGRESS"] = "0"
    logging.getLogger("papermill").setLevel(logging.ERROR)
    began, work, target = time.monotonic(), BUILD / "stage" / profile, PUBLISHED[profile]
    if stage_prose(work / "src"):
        shutil.rmtree(work / "_build", ignore_errors=True)
    try:
        executed = execute_changed(profile, work)
    except PapermillExecutionError as error:
        print(error)
        print(f"A chapter failed; as far as it came it is in {(work / 'raw').relative_to(ROOT)}.")
        return 1
    except KeyboardInterrupt:
        print("\nStopped; the chapters finished so far are kept for the next time.")
        return 130
    if not render(work):
        return 1
    pages = publish(work / "_build/html", target)
    chapters_made = f"{len(chapters())} of them chapters, {executed} executed now at the size '{profile}'"
    where, took = (target / "index.html").relative_to(ROOT), clock(time.monotonic() - began)
    print(f"Book: {pages} pages, {chapters_made}; open {where}; {took}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
