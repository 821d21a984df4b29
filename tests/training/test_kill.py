"""Killed at any moment and resumed: the same weights and the same metrics, byte by byte."""

from __future__ import annotations

import functools
import os
import pickle
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from cpm_lib.training import checkpoint
from tests.training import processes

ITERATIONS = 30
COMMAND = (
    "train --preset cpm --profile smoke --data shapes:smoke --device cpu --log-every 1 "
    f"--iterations {ITERATIONS} --set solver.checkpoint_every=4"
).split()
GROUP = {1: 0, 2: 2}
"""By the number of processes, what `processes.run` is told: a single one is no group."""
WORKERS = {1: ["--workers", "1"], 2: []}
"""Read by a process of its own in the single-process runs: its random state must not matter either."""


def command(out: Path, world: int, *more: str) -> list[str]:
    return [*COMMAND, "--out", str(out), *WORKERS[world], *more]


def kill_during(run: Path, world: int, iteration: int, delay: float, cache: Path) -> None:
    """Resume (or begin) the run and send SIGKILL to one process `delay` seconds after it has noted `iteration`."""
    workers, answers = processes.start(processes.cpm, GROUP[world], command(run, world, "--resume"), cache)
    deadline = time.monotonic() + processes.SECONDS
    while processes.lines(run) < iteration and all(worker.is_alive() for worker in workers):
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    victim = workers[iteration % len(workers)]
    os.kill(victim.pid or 0, signal.SIGKILL)
    for worker in workers:
        # The others notice that it is gone and end by themselves.
        worker.join(60)
        assert not worker.is_alive()
    for worker, answer in zip(workers, answers, strict=True):
        if worker is not victim:
            code, printed = pickle.loads(answer.recv_bytes())
            assert code == 1 and "another process of this group has ended" in printed, printed


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of the run that nobody kills, by its number of processes."""

    @functools.cache
    def made(world: int) -> Path:
        folder = tmp_path_factory.mktemp("whole")
        arguments = command(folder / "run", world)
        assert processes.run(processes.cpm, GROUP[world], arguments, folder / "cache")[0][0] == 0
        return folder / "run"

    return made


def assert_killed_run_is_whole(tmp_path: Path, whole: Path, world: int, kills: int) -> None:
    cache, chance = tmp_path / "cache", random.Random(world)
    points = sorted(chance.sample(range(1, ITERATIONS - 1), kills))
    for point in points:
        kill_during(tmp_path / "killed", world, point, chance.random() * 0.1, cache)
    arguments = command(tmp_path / "killed", world, "--resume")
    code, printed = processes.run(processes.cpm, GROUP[world], arguments, cache)[0]
    assert code == 0 and "resuming after iteration" in printed, printed
    killed = tmp_path / "killed"
    assert (whole / "metrics.jsonl").read_bytes() == (killed / "metrics.jsonl").read_bytes()
    expected, weights = checkpoint.read_weights(whole), checkpoint.read_weights(killed)
    assert expected.keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in expected.items())
    print(f"{world} process(es), killed at iterations {points}: {len(weights)} tensors and the metrics are equal")


@pytest.mark.parametrize("world", [1, 2])
def test_killed_twice(tmp_path: Path, whole_run: Callable[[int], Path], world: int) -> None:
    assert_killed_run_is_whole(tmp_path, whole_run(world), world, 2)


@pytest.mark.soak
@pytest.mark.parametrize("world", [1, 2])
def test_killed_twenty_times(tmp_path: Path, whole_run: Callable[[int], Path], world: int) -> None:
    assert_killed_run_is_whole(tmp_path, whole_run(world), world, 20)


def test_full_disk_keeps_the_checkpoint_before(tmp_path: Path, whole_run: Callable[[int], Path]) -> None:
    run, cache = tmp_path / "run", tmp_path / "cache"
    kill_during(run, 1, 6, 0.0, cache)
    before = {path.name: path.read_bytes() for path in checkpoint.state_files(run)}
    assert before
    size = max(map(len, before.values()))
    code, printed = processes.run(processes.cpm, 0, command(run, 1, "--resume"), cache, size // 2)[0]
    assert code == 2 and "cannot be written" in printed and "Traceback" not in printed, printed
    assert {path.name: path.read_bytes() for path in checkpoint.state_files(run)} == before
    assert not [path for path in (run / "checkpoints").iterdir() if path.name not in before], "half a file is left"
    code, printed = processes.run(processes.cpm, 0, command(run, 1, "--resume"), cache)[0]
    assert code == 0, printed
    assert (run / "metrics.jsonl").read_bytes() == (whole_run(1) / "metrics.jsonl").read_bytes()
