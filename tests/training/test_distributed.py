"""Two processes train one model together."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from cpm_lib.training import checkpoint, distributed


def test_single_process_does_nothing_special() -> None:
    assert (distributed.rank(), distributed.world(), distributed.is_main()) == (0, 1, True)
    value = torch.tensor(2.0)
    assert distributed.reduce_mean(value) is value
    assert distributed.gather("x") == ["x"] and distributed.on_main(lambda: 3) == 3
    model = torch.nn.Linear(1, 1)
    assert distributed.wrap(model, torch.device("cpu")) is model


def test_two_processes(root: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    run = tmp_path / "run"
    command = [sys.executable, "-m", "cpm_lib", "train", "--preset", "faster", "--profile", "smoke"]
    command += ["--data", "shapes:smoke", "--out", str(run), "--log-every", "4", "--device", "cpu"]
    # What torchrun sets; its own start would only take longer.
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    shared |= {"OMP_NUM_THREADS": "1", "CPM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(root)}
    processes = [
        subprocess.Popen(
            command,
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    answers = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    assert "iteration 4/6" in answers[0][0] and not answers[1][0]
    iterations = [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").open()]
    assert iterations == [1, 2, 3, 4, 5, 6]
    assert json.loads((run / "run.json").read_text())["processes"] == 2
    assert checkpoint.load(run).num_classes == 7
