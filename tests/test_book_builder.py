"""The builder of the book: what runs when, what is told about it, and that two builds do not meet."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from book import build, execution
from book.execution import Executor, Job

ROOT = Path(__file__).resolve().parents[1]


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


@pytest.fixture
def executor(tmp_path: Path) -> Executor:
    return Executor(tmp_path)


def test_jobs_run_two_at_a_time_with_one_thread(executor: Executor, tmp_path: Path) -> None:
    note = f"import os, time; t = time.time(); time.sleep(0.5); open(r'{tmp_path}/' + NAME, 'w').write("
    note += 'f\'{t} {time.time()} {os.environ.get("OMP_NUM_THREADS")} {os.environ["CPM_PROGRESS"]}\')'
    jobs = [
        Job(name, python(f"NAME = {name!r}; {note}"), "k", 1, alone=name == "alone") for name in ("a", "b", "alone")
    ]
    jobs.append(Job("last", python(f"NAME = 'last'; {note}"), "k", 0.5, after="a"))
    executor.run(jobs)
    texts = {job.name: (tmp_path / job.name).read_text().split() for job in jobs}
    times = {name: (float(text[0]), float(text[1])) for name, text in texts.items()}
    for name, (start, end) in times.items():
        beside = [other for other, (first, last) in times.items() if other != name and first < end and last > start]
        assert len(beside) <= (0 if name == "alone" else 2)
    assert times["last"][0] > times["a"][1]
    assert times["alone"][0] > max(end for name, (_, end) in times.items() if name != "alone")
    assert {text[2] for name, text in texts.items() if name != "alone"} == {"1"}
    assert {text[3] for text in texts.values()} == {"0"}


def test_a_failure_is_shown_and_done_again(executor: Executor, capsys: pytest.CaptureFixture[str]) -> None:
    good, bad = Job("good", python("pass"), "k", 1), Job("bad", python("raise SystemExit('for a reason')"), "k", 1)
    executor.run([bad, good])
    assert executor.failed == ["bad"]
    assert "for a reason" in capsys.readouterr().out
    again = Executor(executor.work)
    assert again.changed([good, bad]) == [bad]


def test_only_what_changed_is_done_again(executor: Executor) -> None:
    there = True
    job = Job("one", python("pass"), "k", 1, made=lambda: there)
    executor.run([job])
    assert executor.changed([job]) == []
    there = False
    assert executor.changed([job]) == [job]
    there = True
    job.key = "other"
    assert executor.changed([job]) == [job]
    executor.forget([])
    assert executor.state == {}


def test_slow_jobs_are_warned_about_but_never_fail(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "LEAST", 0.1)
    busy = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    jobs = [Job("busy", python(busy), "k", 0.05), Job("waiting", python("import time; time.sleep(0.5)"), "k", 0.05)]
    executor.run(jobs)
    lines = executor.times(jobs)
    assert not executor.failed
    assert [line for line in lines if line.startswith("warning: busy took more than 3 times")]
    # On a busy machine a chapter waits for the others: only its own work counts.
    assert not [line for line in lines if line.startswith("warning: waiting")]


def test_interrupted_jobs_do_not_outlive_the_builder(executor: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job("endless", python("import time; time.sleep(60)"), "k", 1)

    def interrupt(text: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(executor.show, "now", interrupt)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        executor.run([job])
    assert time.monotonic() - began < 20
    assert "endless" not in executor.state


def test_the_detections_are_made_once_for_several(tmp_path: Path) -> None:
    first, second = (Job(name, [], "", 1, after=build.DETECTIONS) for name in ("a", "b"))
    assert build.detections("smoke", [first]) == []
    [made] = build.detections("smoke", [first, second])
    assert made.name == build.DETECTIONS


def test_every_chapter_and_the_cover_are_jobs(tmp_path: Path) -> None:
    jobs = {job.name: job for job in build.jobs("smoke", tmp_path)}
    assert set(jobs) == {"cover", *build.chapters()}
    assert all(not job.made() for job in jobs.values())
    assert len({job.key for job in jobs.values()}) == len(jobs)


def test_chapters_follow_what_they_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("tests/golden", "tests/__pycache__", "notebooks", "cpm_lib", "data", "book"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "book/cover.py").touch()
    (tmp_path / "_toc.yml").write_text(
        "chapters: [{file: notebooks/plain}, {file: notebooks/golden}, {file: notebooks/all}]"
    )
    looks_at: dict[str, list[str]] = {"plain": [], "golden": ["tests/golden"], "all": ["tests", "notebooks"]}
    for name, folders in looks_at.items():
        text = json.dumps({"metadata": {"cpm": {"looks_at": folders} if folders else {}}})
        (tmp_path / f"notebooks/{name}.ipynb").write_text(text)
    monkeypatch.setattr(build, "ROOT", tmp_path)

    def keys() -> dict[str, str]:
        return {job.name: job.key for job in build.jobs("smoke", tmp_path / "work") if job.name != "cover"}

    def changed_by(file: str) -> set[str]:
        before = keys()
        (tmp_path / file).write_text("changed")
        return {name for name, key in keys().items() if key != before[name]}

    assert changed_by("tests/golden/a.npz") == {"golden", "all"}
    assert changed_by("tests/test_one.py") == {"all"}
    assert changed_by("tests/__pycache__/test_one.pyc") == set()
    assert changed_by("cpm_lib/boxes.py") == set(looks_at)
    (tmp_path / "notebooks/plain.ipynb").write_text(json.dumps({"metadata": {"cpm": {"looks_at": ["gone"]}}}))
    with pytest.raises(FileNotFoundError, match="'gone', which is no folder"):
        keys()


def test_versions_of_what_computes_and_draws_are_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    before = build.dependencies("smoke")
    monkeypatch.setattr(build, "version", lambda name: "0" if name == "pycocotools" else version(name))
    assert build.dependencies("smoke") != before


def test_pages_that_are_gone_leave_the_stage(tmp_path: Path) -> None:
    assert build.stage_prose(tmp_path)
    assert not build.stage_prose(tmp_path), "nothing changed"
    gone, cover = tmp_path / "notebooks/99_gone.ipynb", tmp_path / build.COVER
    for path in (gone, cover):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    assert build.stage_prose(tmp_path), "Sphinx must start afresh, else it keeps the page"
    assert not gone.exists()
    assert cover.exists()


def test_outputs_do_not_differ_from_build_to_build(tmp_path: Path) -> None:
    raw = {
        "metadata": {"papermill": {"start_time": "now"}, "cpm": {}},
        "cells": [
            {"cell_type": "code", "id": "p", "metadata": {"tags": ["parameters"], "papermill": {}}},
            {"cell_type": "code", "id": "1a2b", "metadata": {"tags": ["injected-parameters"]}},
        ],
    }
    (tmp_path / "raw.ipynb").write_text(json.dumps(raw))
    build.stage_notebook(tmp_path / "raw.ipynb", tmp_path / "src/out.ipynb")
    made = json.loads((tmp_path / "src/out.ipynb").read_text())
    assert made["metadata"] == {"cpm": {}}
    assert made["cells"][0]["metadata"] == {"tags": ["parameters", "remove-cell"]}
    assert made["cells"][1]["id"] == "parameters-1"


def test_two_builds_do_not_meet(tmp_path: Path) -> None:
    code = "from pathlib import Path; from book.build import locked\n"
    code += f"with locked(Path(r'{tmp_path}')) as free: print(free)"
    with build.locked(tmp_path) as free:
        assert free
        other = subprocess.run(python(code), cwd=ROOT, capture_output=True, text=True)
        assert other.stdout.strip() == "False", other.stderr
    other = subprocess.run(python(code), cwd=ROOT, capture_output=True, text=True)
    assert other.stdout.strip() == "True", other.stderr
