"""Two processes train one model together, and survive the loss of one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from cpm_lib.training import checkpoint, distributed
from tests.training import processes


def test_single_process_does_nothing_special() -> None:
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    value = torch.tensor(2.0)
    assert distributed.reduce_mean(value) is value
    assert distributed.gather("x") == ["x"] and distributed.on_main(lambda: 3) == 3
    model = torch.nn.Linear(1, 1)
    assert distributed.wrap(model, torch.device("cpu")) is model


def test_torchrun_starts_again_and_the_run_goes_on(root: Path, tmp_path: Path) -> None:
    """One of two processes is killed: torchrun starts both again, and they resume without being told to."""
    run, cache = tmp_path / "run", tmp_path / "cache"
    options = ["--preset", "faster", "--profile", "smoke", "--data", "shapes:smoke", "--val", "shapes:smoke:val"]
    options += ["--log-every", "1", "--device", "cpu", "--iterations", "24"]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["--max-restarts", "1", "-m", "cpm_lib", "train", *options, "--out", str(run)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CPM_CACHE": str(cache), "PYTHONPATH": str(root)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=root
    ) as torchrun:
        while processes.lines(run) < 8:
            assert torchrun.poll() is None, torchrun.communicate()[0]
            time.sleep(0.005)
        os.kill(workers_of(torchrun.pid)[-1], signal.SIGKILL)
        printed = torchrun.communicate(timeout=processes.SECONDS)[0]
    assert torchrun.returncode == 0, printed
    assert "another process of this group has ended" in printed and "resuming after iteration" in printed
    assert "Traceback" not in printed
    whole = tmp_path / "whole"
    codes = processes.run(processes.cpm, 2, ["train", *options, "--out", str(whole)], cache)
    assert [code for code, _ in codes] == [0, 0]
    assert "iteration 4/24" in codes[0][1] and not codes[1][1], "only the main process prints"
    for record in ("metrics.jsonl", "evaluations.jsonl"):
        assert (run / record).read_bytes() == (whole / record).read_bytes()
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    assert checkpoint.load(run).num_classes == 7


def workers_of(parent: int) -> list[int]:
    """The processes that `parent` has started, in the order of their start."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(parent)], capture_output=True, text=True, check=True)
    return sorted(map(int, found.stdout.split()))
