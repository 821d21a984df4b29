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
import fcntl
import hashlib
import json
import platform
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    # This file is run as a script, which does not know the folder above it.
    sys.path.insert(0, str(ROOT))

from book.execution import Executor, Job, clock  # noqa: E402

BUILD = ROOT / "_build"
PUBLISHED = {"quick": BUILD / "html", "smoke": BUILD / "smoke/html"}
CELL_TIMEOUT = 1800
"""Seconds after which a cell counts as stuck; the longest one trains for about 4 minutes."""

LIBRARY_FILES = {".py", ".js", ".css", ".json", ".safetensors"}
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "pycocotools", "matplotlib", "papermill")
DETECTIONS = "detections of the shipped model"
COVER = Path("book/_made/cover.html")
"""The explorer of the first page, below the stage."""

GENERATED = {COVER}

# jupyter-book's own has no icon, so that a browser may ask for one that is not there.
FIRST_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>CPM R-CNN, step by step</title><link rel="icon" href="data:,">
<meta http-equiv="Refresh" content="0; url=book/index.html"></head>
<body><a href="book/index.html">CPM R-CNN, step by step</a></body></html>
"""


@contextmanager
def locked(work: Path) -> Iterator[bool]:
    """Whether this is the only build in the folder `work`; the lock goes when the process ends, however it does."""
    work.mkdir(parents=True, exist_ok=True)
    with (work / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


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
    packages = [f"{name} {version(name)}" for name in PACKAGES]
    digest = hashlib.sha256("\n".join([profile, platform.python_version(), *packages]).encode())
    for folder in (ROOT / "cpm_lib", ROOT / "data"):
        for path in sorted(folder.rglob("*")):
            if path.suffix in LIBRARY_FILES and not path.is_relative_to(ROOT / "data/cache"):
                digest.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return digest.hexdigest()


def looked_at(folders: Sequence[str]) -> bytes:
    """Digest of what a chapter declares to look at beside the library and the records.

    Args:
        folders: relative to the root, as `looks_at` under `cpm` in the metadata of a notebook.

    Raises:
        FileNotFoundError: one of them is no folder.
    """
    digest = hashlib.sha256()
    for name in folders:
        if not (ROOT / name).is_dir():
            raise FileNotFoundError(f"looks_at in a notebook's metadata names '{name}', which is no folder here")
        for path in sorted((ROOT / name).rglob("*")):
            relative = path.relative_to(ROOT)
            # Python's and Jupyter's own files come and go.
            if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in relative.parts):
                digest.update(str(relative).encode() + path.read_bytes())
    return digest.digest()


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
    wanted = {*sources.values(), *GENERATED, *(Path(f"notebooks/{name}.ipynb") for name in chapters())}
    for path in stage.rglob("*"):
        if path.is_file() and "__pycache__" not in path.parts and path.relative_to(stage) not in wanted:
            path.unlink()
            afresh = True
    return afresh


def jobs(profile: str, work: Path) -> list[Job]:
    """Everything that has to be computed for the book: the chapters, and the moving picture of the cover."""
    shared, cover = dependencies(profile), work / "src" / COVER
    script = ROOT / "book/cover.py"
    found = [
        Job(
            "cover",
            [sys.executable, str(script), profile, str(cover)],
            hashlib.sha256(shared.encode() + script.read_bytes()).hexdigest(),
            declared=10,
            after=DETECTIONS,
            made=cover.exists,
        )
    ]
    for name in chapters():
        path, raw = ROOT / f"notebooks/{name}.ipynb", work / f"raw/{name}.ipynb"
        source = path.read_bytes()
        about = json.loads(source)["metadata"].get("cpm", {})
        key = hashlib.sha256(shared.encode() + source + looked_at(about.get("looks_at", ())))
        raw.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "papermill", str(path), str(raw), "-p", "profile", profile, "-k", "python3"]
        command += ["--cwd", str(path.parent), "--no-progress-bar", "--log-level", "ERROR"]
        found.append(
            Job(
                name,
                [*command, "--execution-timeout", str(CELL_TIMEOUT)],
                key.hexdigest(),
                declared=about.get("seconds", {}).get(profile, 30),
                # At the size of tests nobody reads the times that are measured.
                alone=about.get("alone", False) and profile != "smoke",
                after=DETECTIONS if b"shipped." in source else "",
                made=(work / f"src/notebooks/{name}.ipynb").exists,
                finish=partial(stage_notebook, raw, work / f"src/notebooks/{name}.ipynb"),
                complaint=lambda log: log[max(log.rfind("PapermillExecutionError"), 0) :][-5000:],
            )
        )
    return found


def stage_notebook(raw: Path, target: Path) -> None:
    """Put an executed notebook on the stage, without what differs from build to build: times and random ids."""
    notebook = json.loads(raw.read_text(encoding="utf-8"))
    notebook["metadata"].pop("papermill", None)
    for number, cell in enumerate(notebook["cells"]):
        cell["metadata"].pop("papermill", None)
        tags = cell["metadata"].get("tags", [])
        if "injected-parameters" in tags:
            cell["id"] = f"parameters-{number}"
        elif "parameters" in tags:
            # The cell injected below it shows the values that were used.
            tags.append("remove-cell")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(notebook), encoding="utf-8")


def detections(profile: str, jobs: Sequence[Job]) -> list[Job]:
    """The inference that several of `jobs` look at, to be made once and before them; none if it is not worth it."""
    if sum(job.after == DETECTIONS for job in jobs) < 2:
        return []
    code = f"from cpm_lib import shipped; shipped.detections({profile!r})"
    return [Job(DETECTIONS, [sys.executable, "-c", code], "", declared={"smoke": 15}.get(profile, 60))]


def rendering(work: Path) -> Job:
    """jupyter-book on the stage; any warning is an error."""
    program = Path(sys.executable).with_name("jupyter-book")
    command = [sys.executable, str(program), "build", str(work / "src"), "--path-output", str(work)]

    def faults(log: str) -> str:
        return "\n".join(line for line in log.splitlines() if "WARNING" in line or "ERROR" in line) or log

    return Job("rendering", [*command, "-W", "--keep-going", "-n", "-q"], "", declared=20, complaint=faults)


def publish(made: Path, target: Path) -> int:
    """Put the rendered book in the place of the last one; the number of its pages."""
    fresh, old = target.with_name("html.new"), target.with_name("html.old")
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(made, fresh)
    if (fresh / "index.html").exists():
        (fresh / "index.html").write_text(FIRST_PAGE, encoding="utf-8")
    if target.exists():
        target.rename(old)
    fresh.rename(target)
    shutil.rmtree(old, ignore_errors=True)
    return sum(1 for folder in ("book", "notebooks") for _ in (target / folder).glob("*.html"))


def build(profile: str, work: Path) -> int:
    """Make the book of a size; the exit code."""
    began, target, executor = time.monotonic(), PUBLISHED[profile], Executor(work)
    if stage_prose(work / "src"):
        shutil.rmtree(work / "_build", ignore_errors=True)
    everything = jobs(profile, work)
    executor.forget([DETECTIONS, "rendering", *(job.name for job in everything)])
    changed = executor.changed(everything)
    executor.run([*detections(profile, changed), *changed])
    if executor.failed:
        print(f"{', '.join(executor.failed)} failed; logs and notebooks as far as they came: {work.relative_to(ROOT)}.")
        return 1
    table = executor.times(changed)
    executor.run([rendering(work)])
    if executor.failed:
        print(f"The book was not rendered; the whole log is {(work / 'logs/rendering.log').relative_to(ROOT)}.")
        return 1
    pages = publish(work / "_build/html", target)
    for line in table:
        print(line)
    count = f"{len(chapters())} of them chapters, {len(changed)} parts executed now at the size '{profile}'"
    where, took = (target / "index.html").relative_to(ROOT), clock(time.monotonic() - began)
    print(f"Book: {pages} pages, {count}; open {where}; {took}.")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", choices=sorted(PUBLISHED), default="quick")
    profile = parser.parse_args().profile
    work = BUILD / "stage" / profile
    # Else the processes of the chapters would outlive this one.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with locked(work) as free:
        if not free:
            print(f"Another build of the size '{profile}' is at work here: wait until it has ended, or stop it.")
            return 2
        try:
            return build(profile, work)
        except KeyboardInterrupt:
            print("\nStopped; the chapters finished so far are kept for the next time.")
            return 130


if __name__ == "__main__":
    sys.exit(main())
