"""Executes what has changed of a book's jobs, two at a time, and keeps the times.

A job is one process: a chapter run by papermill, or a script. A job is done again only when its key has changed.
Each process gets one thread, so that two together use two cores and numbers do not depend on the machine's cores;
jobs that measure time run alone, after the others and with all threads.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cpm_lib.files import write_atomic

LANES = 2
"""Jobs at a time; each takes one core and up to 2 GB of memory."""

TOO_SLOW = 3
"""A job is reported if it took this many times what it declares."""

LEAST = 20
"""... and this many seconds: starting a kernel and importing torch may take half of it on a busy machine."""


@dataclass
class Job:
    """One thing to make, e.g. an executed chapter.

    Attributes:
        command: makes it; what it prints is kept in a log and shown only if it fails.
        key: changes with everything the result depends on.
        declared: seconds it should take on a quiet machine.
        alone: it measures time, so nothing else may run beside it.
        after: name of the job that must be done before.
        made: is there what the last time made?
        finish: what is done with the result, in this process.
        complaint: what of the log is shown if it fails.
    """

    name: str
    command: list[str]
    key: str
    declared: float
    alone: bool = False
    after: str = ""
    made: Callable[[], bool] = field(default=lambda: True)
    finish: Callable[[], None] = field(default=lambda: None)
    complaint: Callable[[str], str] = field(default=lambda log: "\n".join(log.splitlines()[-30:]))


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]
    log: Path
    guess: float
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


def clock(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.1f} min"


class Show:
    """What is under way: one line that changes on a terminal, else lines at each change and each half minute."""

    def __init__(self) -> None:
        self.live = sys.stdout.isatty()
        self._said = time.monotonic()
        self._last = ""

    def line(self, text: str) -> None:
        """A line that stays."""
        print(f"\r\033[K{text}" if self.live else text, flush=True)
        self._said = time.monotonic()

    def now(self, text: str) -> None:
        if self.live and text != self._last:
            self._last = text
            print(f"\r\033[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif not self.live and time.monotonic() - self._said >= 30:
            self.line(text)


class Executor:
    """Executes jobs and remembers their keys and times in a file."""

    def __init__(self, work: Path) -> None:
        self.work, self.show = work, Show()
        self._file = work / "state.json"
        self.state: dict[str, dict[str, Any]] = {}
        # What is not there, or was torn by a full disk, is known no more: everything is executed again.
        with suppress(OSError, ValueError):
            self.state = json.loads(self._file.read_text())
        self.failed: list[str] = []
        self.done: list[str] = []

    def changed(self, jobs: Sequence[Job]) -> list[Job]:
        return [job for job in jobs if self.state.get(job.name, {}).get("key") != job.key or not job.made()]

    def run(self, jobs: Sequence[Job]) -> None:
        """Execute `jobs`; names of those that failed are in `failed`, and no key of theirs is kept.

        Raises:
            KeyboardInterrupt: after all processes have ended.
        """
        # What others wait for comes first, then the longest: so the last ones end at nearly the same time.
        needed = {job.after for job in jobs}
        waiting = sorted(jobs, key=lambda job: (job.name not in needed, job.alone, -self._guess(job)))
        running: list[_Running] = []
        finished = 0
        try:
            while waiting or running:
                for job in list(waiting):
                    if self._may_start(job, running, waiting):
                        waiting.remove(job)
                        running.append(self._start(job))
                time.sleep(0.1)
                for one in list(running):
                    ended, status, usage = os.wait4(one.process.pid, os.WNOHANG)
                    if ended:
                        one.process.returncode = os.waitstatus_to_exitcode(status)
                        running.remove(one)
                        finished += 1
                        self._end(one, usage.ru_utime + usage.ru_stime)
                if running:
                    times = (f"{one.job.name} {clock(one.seconds)} of about {clock(one.guess)}" for one in running)
                    self.show.now(f"{finished} of {len(jobs)} done; {', '.join(times)}")
        finally:
            _stop([one.process for one in running])

    def _may_start(self, job: Job, running: Sequence[_Running], waiting: Sequence[Job]) -> bool:
        if any(job.after == other.name for other in (*waiting, *(one.job for one in running))):
            return False
        if job.alone:
            return not running and all(other.alone for other in waiting)
        return len(running) < min(LANES, _cores()) and not any(one.job.alone for one in running)

    def _guess(self, job: Job) -> float:
        return float(self.state.get(job.name, {}).get("seconds", job.declared))

    def _start(self, job: Job) -> _Running:
        log = self.work / "logs" / f"{job.name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        # Kernels inherit it: a progress bar in an output is noise on a page.
        environment = {**os.environ, "CPM_PROGRESS": "0"}
        if not job.alone:
            environment["OMP_NUM_THREADS"] = "1"
        with log.open("wb") as file:
            process = subprocess.Popen(
                job.command, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, env=environment
            )
        guess = self._guess(job)
        if not self.show.live:
            self.show.line(f"{job.name}: started, about {clock(guess)}")
        return _Running(job, process, log, guess)

    def _end(self, one: _Running, processor: float) -> None:
        name, seconds = one.job.name, one.seconds
        self.done.append(name)
        if one.process.returncode:
            self.failed.append(name)
            self.state.pop(name, None)
            self.show.line(f"{name}: FAILED after {clock(seconds)}")
            print(one.job.complaint(one.log.read_text(errors="replace")), flush=True)
        else:
            one.job.finish()
            times = {"seconds": round(seconds, 1), "processor": round(processor, 1)}
            self.state[name] = {"key": one.job.key, **times}
            self.show.line(f"{name}: took {clock(seconds)}")
        write_atomic(self._file, json.dumps(self.state, indent=1))

    def forget(self, known: Sequence[str]) -> None:
        """Drop what is known of jobs that are no longer there."""
        self.state = {name: entry for name, entry in self.state.items() if name in known}

    def times(self, jobs: Sequence[Job]) -> list[str]:
        """A table of those just done, and a warning for each that was much slower than it declares."""
        done = [job for job in jobs if job.name in self.done and job.name not in self.failed]
        width = max((len(job.name) for job in done), default=0)
        lines = [f"{'':{width}}  {'took':>8}  {'processor':>9}  {'declared':>8}"] if done else []
        slow = []
        for job in done:
            took, processor = (self.state[job.name][key] for key in ("seconds", "processor"))
            numbers = f"{clock(took):>8}  {clock(processor):>9}  {clock(job.declared):>8}"
            lines.append(f"{job.name:{width}}  {numbers}")
            # On a machine with other work the clock runs on, but the processor's time does not; who sleeps or
            # uses several cores is judged by the clock.
            if min(took, processor) > max(TOO_SLOW * job.declared, LEAST):
                slow.append(f"warning: {job.name} took more than {TOO_SLOW} times what it declares (cpm.seconds)")
        return lines + slow


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
            continue
        process.kill()
        process.wait()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
