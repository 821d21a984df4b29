"""A training in child processes: the same run, its lines as they come, and clear words when it ends early."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.data import open_source
from cpm_lib.errors import UserError
from cpm_lib.training import Interrupted, checkpoint, launch, train

Smoke = Callable[..., Config]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread and a cache of its own for every child."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CPM_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("preset", "profile", "conventions", "changes"),
    [
        ("cpm", "paper", "corrected", {}),
        ("cpm-x101-dcn", "gpu", "official", {"solver.images_per_batch": 8}),
        ("faster", "smoke", "corrected", {"solver.clip_norm": None, "input.train_sizes": (64, 80), "solver.lr": 0.1}),
        ("cascade-ism", "quick", "official", {"backbone.name": "resnet101", "grid.start_bias": 1e-7}),
    ],
)
def test_settings_make_the_configuration(preset: str, profile: str, conventions: str, changes: dict[str, Any]) -> None:
    config = presets.get(preset, profile, conventions).override(changes)
    assert presets.get(preset, profile).override_text(launch.settings(config)) == config


def test_command_line(smoke: Smoke) -> None:
    config = smoke(**{"solver.lr": 0.5})
    one = launch.command(config, "shapes:smoke", "run", init="trunk")
    assert one[:4] == [sys.executable, "-m", "cpm_lib", "train"]
    assert one[one.index("--init") + 1] == "trunk" and "--resume" not in one and "--val" not in one
    assert one[one.index("--set") + 1 :] == ["solver.lr=0.5"]
    two = launch.command(config, "shapes:smoke", "run", processes=2, resume=True)
    assert two[:6] == [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    assert "--resume" in two


def test_one_process_is_the_same_run(smoke: Smoke, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = smoke(**{"solver.lr": 0.001, "solver.iterations": 4})
    run = tmp_path / "run"
    final = launch.launch(config, "shapes:smoke", run, val="shapes:smoke:val", seed=3, options=("--log-every", "2"))
    assert final == run / "final.safetensors" and checkpoint.read_card(final).config == config
    printed = capsys.readouterr()
    assert "iteration 2/4" in printed.out and "AP" in printed.out and not printed.err
    train(config, open_source("shapes:smoke"), tmp_path / "other", seed=3, quiet=True)
    assert (run / "metrics.jsonl").read_bytes() == (tmp_path / "other/metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"exit code 2, something to mend\): .*already holds a run.*--out$"):
        launch.launch(config, "shapes:smoke", run, quiet=True)
    assert not capsys.readouterr().out


def test_interruption_of_two_processes_is_passed_on(
    smoke: Smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    def stop_after_two(line: str, **_: Any) -> None:
        shown.append(line)
        if line.startswith("iteration 2/"):
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(launch, "print", stop_after_two, raising=False)
    run = tmp_path / "run"
    config = smoke(**{"solver.iterations": 2000, "solver.checkpoint_every": 2000})
    # A shell that starts the tests in the background has Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match="--resume") as stopped:
            launch.launch(config, "shapes:smoke", run, processes=2, options=("--log-every", "1"))
    finally:
        signal.signal(signal.SIGINT, before)
    assert stopped.value.exit_code == 130
    first = next(number for number, line in enumerate(shown) if line.startswith("cpm: "))
    assert all(line.startswith("cpm: ") for line in shown[first:]), "torchrun's own report is not shown"
    assert any(line.startswith("cpm: interrupted; the run is saved") for line in shown[first:])
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["iteration"]
    assert [path.name for path in checkpoint.state_files(run)] == [f"ckpt-{last:08d}.pt"]
    assert not (run / "final.safetensors").exists()


REPORT = """\
W1126 10:00:00.000000 99 torch/distributed/elastic/multiprocessing/api.py:1010] Sending process 1 closing signal
Root Cause (first observed failure):
[0]:
  exitcode  : {} (pid: 1)
"""


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (
            "print('cpm: rank 1: error: no data'); print('cpm: error: lost it'); raise SystemExit(2)",
            r"exit code 2, .*\): no data$",
        ),
        ("print('cpm: interrupted'); raise SystemExit(143)", r"exit code 143, told to stop.*\): interrupted$"),
        ("print('line 7'); import os; os.kill(os.getpid(), 9)", r"\(killed, .*memory.*\): line 7$"),
        ("raise ValueError('our bug')", r"exit code 1, .*\): ValueError: our bug$"),
        (f"print('line 8'); print({REPORT.format(-9)!r}); raise SystemExit(1)", r"\(killed, .*\): line 8$"),
        (f"print('cpm: a'); print({REPORT.format(130)!r}); raise SystemExit(1)", r"exit code 130, .*resume.*\): a$"),
        ("raise SystemExit(77)", r"exit code 77\): it said nothing$"),
    ],
)
def test_end_of_the_child_in_words(
    program: str, words: str, smoke: Smoke, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(launch, "command", lambda *_, **__: [sys.executable, "-c", program])
    with pytest.raises(UserError, match=words) as failed:
        launch.launch(smoke(), "shapes:smoke", tmp_path)
    assert "\n" not in str(failed.value)
