"""What `make test` runs, in order, and what of it did not run.

Skipped is not passed: the last line names what was NOT RUN and why, and with CI=true that is a failure.
`run_all.py lint` stops after the first three steps.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORTS = ROOT / "_build/test"
PYTHON = sys.executable
PYTEST = [PYTHON, "-m", "pytest", "-q", "--color=auto"]


@dataclass
class Outcome:
    """Sum of all steps so far."""

    passed: int = 0
    failed: list[str] = field(default_factory=list)
    not_run: Counter[str] = field(default_factory=Counter)
    """How many tests were skipped for each reason."""

    def read(self, report: Path) -> None:
        """Add a junit file; an xfail is reported as skipped, too, and counts as such."""
        for case in ElementTree.parse(report).iter("testcase"):
            skipped = case.find("skipped")
            if skipped is not None:
                self.not_run[skipped.get("message", "no reason given")] += 1
            elif case.find("failure") is None and case.find("error") is None:
                self.passed += 1


def step(outcome: Outcome, title: str, estimate: str, command: list[str], **environment: str) -> bool:
    print(f"\n== {title} (about {estimate})", flush=True)
    began = time.monotonic()
    good = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}).returncode == 0
    print(f"== {title}: {'passed' if good else 'FAILED'} in {time.monotonic() - began:.0f} s", flush=True)
    if not good:
        outcome.failed.append(title)
    return good


def tests(outcome: Outcome, title: str, estimate: str, arguments: list[str], **environment: str) -> None:
    """A step of pytest; its skipped tests are counted by reason."""
    report = REPORTS / f"{title}.xml"
    report.unlink(missing_ok=True)
    step(outcome, title, estimate, [*PYTEST, f"--junitxml={report}", *arguments], **environment)
    if report.exists():
        outcome.read(report)


def lint(outcome: Outcome) -> None:
    step(outcome, "format", "1 s", [PYTHON, "-m", "ruff", "format", "--check", "--quiet", "."])
    step(outcome, "ruff", "1 s", [PYTHON, "-m", "ruff", "check", "--quiet", "."])
    step(outcome, "types", "20 s", [PYTHON, "-m", "mypy", "cpm_lib"])


def everything(outcome: Outcome) -> None:
    book = ["tests/book"]
    if not step(outcome, "smoke book", "3 min", [PYTHON, "book/build.py", "--profile", "smoke"]):
        outcome.not_run["the smoke book was not built, so its browser tests"] += 1
        book = ["--ignore=tests/book"]
    # One run for all, as importing torch takes its processes seconds. Two of one thread each are faster than one of two
    # threads, and give the same numbers everywhere. By file, because the cells of a notebook belong to one kernel, and
    # in the order given, so that the long files are not the last: the book, then the tests, then the notebooks.
    pair = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder"]
    settings = {"OMP_NUM_THREADS": "1", "CPM_BOOK_HTML": str(ROOT / "_build/smoke/html")}
    tests(outcome, "tests", "10 min", ["--nbval", *book, "tests", "notebooks", *pair], **settings)


def verdict(outcome: Outcome, took: float) -> int:
    strict = os.environ.get("CI", "").lower() == "true"
    parts = [f"{outcome.passed} tests passed"]
    if outcome.failed:
        parts.append(f"FAILED: {', '.join(outcome.failed)}")
    if outcome.not_run:
        reasons = "; ".join(f"{count} x {reason}" for reason, count in sorted(outcome.not_run.items()))
        parts.append(f"NOT RUN{' (a failure, as CI=true)' if strict else ''}: {reasons}")
    else:
        parts.append("nothing was skipped")
    bad = bool(outcome.failed) or (strict and bool(outcome.not_run))
    print(f"\nmake test: {'FAILED' if bad else 'passed'} in {took:.0f} s. {'. '.join(parts)}.")
    return 1 if bad else 0


def main() -> int:
    began, outcome = time.monotonic(), Outcome()
    os.environ["CPM_PROGRESS"] = "0"
    REPORTS.mkdir(parents=True, exist_ok=True)
    lint(outcome)
    if sys.argv[1:] == ["lint"]:
        print(f"\nmake lint: {'FAILED: ' + ', '.join(outcome.failed) if outcome.failed else 'passed'}.")
        return 1 if outcome.failed else 0
    everything(outcome)
    return verdict(outcome, time.monotonic() - began)


if __name__ == "__main__":
    sys.exit(main())
