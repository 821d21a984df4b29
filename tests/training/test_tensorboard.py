"""TensorBoard shows what the records say, each step once, and changes nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cpm_lib.cli import main
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.training import checkpoint, train
from cpm_lib.training.run_folder import RunFolder

Smoke = Callable[..., Config]


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every event that TensorBoard would show, by name."""
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    return {name: [(e.step, e.value) for e in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_same_numbers_as_the_records_and_the_same_run(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    run, plain = tmp_path / "run", tmp_path / "plain"
    config = smoke(**{"solver.evaluate_every": 4})
    settings = {"val": shapes["val"], "log_every": 2, "quiet": True}
    train(config, shapes["train"], run, tensorboard=True, **settings)
    train(config, shapes["train"], plain, **settings)
    assert (run / "metrics.jsonl").read_bytes() == (plain / "metrics.jsonl").read_bytes()
    ours, others = checkpoint.read_weights(run), checkpoint.read_weights(plain)
    assert all(ours[name].equal(others[name]) for name in ours)
    shown = scalars(run)
    assert {"loss/total", "loss/objectness", "learning_rate", "speed/images_per_s", "validation/AP"} <= shown.keys()
    rows = RunFolder(run).records("metrics")
    for name, key in {"loss/total": "loss", "loss/classifier": "loss_classifier", "learning_rate": "lr"}.items():
        assert [step for step, _ in shown[name]] == [1, 2, 3, 4, 5, 6]
        assert [value for _, value in shown[name]] == pytest.approx([row[key] for row in rows])
    assert [step for step, _ in shown["speed/images_per_s"]] == [2, 4, 6]
    assert [step for step, _ in shown["validation/AP"]] == [4, 6]


def test_no_step_twice_after_a_crash(smoke: Smoke, shapes: dict[str, Any], hooked: Any, tmp_path: Path) -> None:
    def crash(read: int, sample: Any) -> Any:
        if read == 2 * 5 + 1:
            raise RuntimeError("power cut")
        return sample

    config, run = smoke(**{"solver.evaluate_every": 4}), tmp_path / "run"
    settings = {"val": shapes["val"], "log_every": 1, "quiet": True, "tensorboard": True}
    # Checkpoints come at 3 and 6: iterations 4 and 5 and the evaluation at 4 are repeated.
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, hooked(shapes["train"], crash), run, **settings)
    assert [step for step, _ in scalars(run)["loss/total"]] == [1, 2, 3, 4, 5]
    train(config, shapes["train"], run, resume=True, **settings)
    shown = scalars(run)
    assert [step for step, _ in shown["validation/AP"]] == [4, 6]
    for name in ("loss/total", "learning_rate", "speed/images_per_s"):
        assert [step for step, _ in shown[name]] == [1, 2, 3, 4, 5, 6]
    losses = [json.loads(line)["loss"] for line in (run / "metrics.jsonl").open()]
    assert [value for _, value in shown["loss/total"]] == pytest.approx(losses)


def test_missing_package_is_said_before_any_work(
    smoke: Smoke, shapes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    for name in [name for name in sys.modules if name.startswith("torch.utils.tensorboard")]:
        monkeypatch.delitem(sys.modules, name)
    run = tmp_path / "run"
    with pytest.raises(UserError, match="pip install tensorboard"):
        train(smoke(), shapes["train"], run, tensorboard=True, quiet=True)
    command = ["train", "--preset", "faster", "--profile", "smoke", "--data", "shapes:nothing", "--out", str(run)]
    assert main([*command, "--tensorboard"]) == 2
    assert "pip install tensorboard" in capsys.readouterr().err
    assert not run.exists()
