"""The loop: repeatable to the byte, resumable without a trace, clear when something is wrong."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import environment
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.training import Interrupted, checkpoint, train

SGD = {"solver.optimiser": "sgd", "solver.lr": 0.01, "solver.schedule": "step", "solver.steps": (4,)}
QUICK = {"solver.precision": "bf16"}
Smoke = Callable[..., Config]


def assert_same_run(one: Path, other: Path) -> None:
    assert (one / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    left, right = checkpoint.read_weights(one), checkpoint.read_weights(other)
    assert left.keys() == right.keys()
    assert all(torch.equal(left[name], right[name]) for name in left)


def stop_at(number: int, signal_number: int) -> Callable[[int, Any], Any]:
    def hook(read: int, sample: Any) -> Any:
        if read == number:
            signal.raise_signal(signal_number)
        return sample

    return hook


def test_same_seed_gives_same_bytes(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    config = smoke("cpm")
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        torch.rand(5)  # nothing drawn before may matter
        train(config, shapes["train"], tmp_path / name, seed=seed, quiet=True)
    assert_same_run(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a/metrics.jsonl").read_bytes() != (tmp_path / "c/metrics.jsonl").read_bytes()


@pytest.mark.parametrize("changes", [SGD, QUICK], ids=["sgd", "adamw-bf16"])
def test_resume_after_interruption_is_exact(
    changes: dict[str, Any],
    smoke: Smoke,
    shapes: dict[str, Any],
    hooked: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On every machine, also where bfloat16 is slow.
    monkeypatch.setattr(environment, "has_bfloat16", lambda device: True)
    config = smoke("cpm", **changes)
    train(config, shapes["train"], tmp_path / "whole", quiet=True)
    # The first image of iteration 5 is being read; checkpoints of the schedule come at 3 and 6.
    data = hooked(shapes["train"], stop_at(2 * 4 + 1, signal.SIGINT))
    with pytest.raises(Interrupted, match="--resume") as stopped:
        train(config, data, tmp_path / "parts", quiet=True)
    assert stopped.value.exit_code == 130
    states = [path.name for path in checkpoint.state_files(tmp_path / "parts")]
    assert states == ["ckpt-00000003.pt", "ckpt-00000005.pt"]
    assert not (tmp_path / "parts/final.safetensors").exists()
    train(config, shapes["train"], tmp_path / "parts", resume=True, quiet=True)
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    assert json.loads((tmp_path / "parts/run.json").read_text())["resumed_at"] == [5]


def test_sigterm_has_its_own_code_and_handlers_are_restored(
    smoke: Smoke, shapes: dict[str, Any], hooked: Any, tmp_path: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as stopped:
        train(smoke(), hooked(shapes["train"], stop_at(1, signal.SIGTERM)), tmp_path / "run", quiet=True)
    assert stopped.value.exit_code == 143
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_resume_after_a_crash_forgets_what_came_after_the_checkpoint(
    smoke: Smoke, shapes: dict[str, Any], hooked: Any, tmp_path: Path
) -> None:
    def crash(read: int, sample: Any) -> Any:
        if read == 2 * 5 + 1:
            raise RuntimeError("power cut")
        return sample

    config, run = smoke(), tmp_path / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        train(config, hooked(shapes["train"], crash), run, log_every=1, quiet=True)
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 5
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"iteration": 6, "lr"')
    train(config, shapes["train"], run, resume=True, log_every=1, quiet=True)
    train(config, shapes["train"], tmp_path / "whole", quiet=True)
    assert_same_run(tmp_path / "whole", run)
    assert [json.loads(line)["iteration"] for line in (run / "timing.jsonl").open()] == [1, 2, 3, 4, 5, 6]


def test_damaged_newest_checkpoint_is_reported_and_the_one_before_used(
    smoke: Smoke, shapes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, run = smoke(), tmp_path / "run"
    train(config, shapes["train"], run, quiet=True)
    weights = checkpoint.read_weights(run)
    newest = run / "checkpoints/ckpt-00000006.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 200] = bytes(200)
    newest.write_bytes(content)
    train(config, shapes["train"], run, resume=True)
    printed = capsys.readouterr().out
    assert "ckpt-00000006.pt: damaged" in printed and "resuming after iteration 3" in printed
    assert all(torch.equal(value, weights[name]) for name, value in checkpoint.read_weights(run).items())
    for path in checkpoint.state_files(run):
        path.write_bytes(b"PK")
    with pytest.raises(UserError, match="all checkpoints are damaged"):
        train(config, shapes["train"], run, resume=True, quiet=True)


def test_not_a_number_stops_with_a_dump(smoke: Smoke, shapes: dict[str, Any], hooked: Any, tmp_path: Path) -> None:
    def spoil(read: int, sample: Any) -> Any:
        image, target = sample
        return (image * float("nan") if read == 5 else image), target

    run = tmp_path / "run"
    with pytest.raises(UserError, match=r"iteration 3: loss_objectness.*image ids \[.*solver.lr") as refused:
        train(smoke(), hooked(shapes["train"], spoil), run, quiet=True)
    assert "\n" not in str(refused.value)
    dump = torch.load(run / "dump-3.pt", weights_only=True)
    assert len(dump["image_ids"]) == len(dump["boxes"]) == 2 and dump["boxes"][0].shape[1] == 4
    assert dump["losses"]["loss_objectness"] != dump["losses"]["loss_objectness"]
    assert len((run / "metrics.jsonl").read_text().splitlines()) == 2
    assert not (run / "checkpoints").exists()


def test_diverging_weights_stop_too(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not finite.*lower solver.lr"):
        train(smoke("cpm", **{"solver.lr": 1e30}), shapes["train"], tmp_path / "run", quiet=True)
    assert not (tmp_path / "run/checkpoints").exists()


def test_folder_of_another_run_is_refused(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(smoke(), shapes["train"], run, quiet=True)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"already holds a run.*--resume.*--out"):
        train(smoke(), shapes["train"], run, quiet=True)
    for difference, arguments in {
        "solver.lr was 0.002 and is now 0.5": {"config": smoke(**{"solver.lr": 0.5})},
        "preset was 'faster' and is now 'cpm'": {"config": smoke("cpm")},
        "data.name was 'shapes:smoke:train' and is now 'shapes:smoke:val'": {"dataset": shapes["val"]},
        "seed was 0 and is now 1": {"seed": 1},
    }.items():
        settings = {"config": smoke(), "dataset": shapes["train"], **arguments}
        with pytest.raises(UserError, match=difference):
            train(settings.pop("config"), settings.pop("dataset"), run, resume=True, quiet=True, **settings)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_unusable_folders(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/cpm/run")):
        with pytest.raises(UserError, match=r"another --out|cannot be written"):
            train(smoke(), shapes["train"], out, quiet=True)


def test_resume_without_a_run_starts_one(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path) -> None:
    train(smoke(), shapes["train"], tmp_path / "run", resume=True, quiet=True)
    train(smoke(), shapes["train"], tmp_path / "other", quiet=True)
    assert_same_run(tmp_path / "run", tmp_path / "other")


def test_initialisation_takes_what_matches(
    smoke: Smoke, shapes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frozen = {"solver.lr": 0.0}
    trunk = train(smoke(), shapes["train"], tmp_path / "trunk", seed=5, quiet=True)
    train(smoke("cpm", **frozen), shapes["train"], tmp_path / "run", init=tmp_path / "trunk")
    assert "initialised" in capsys.readouterr().out
    taken, given = checkpoint.read_weights(tmp_path / "run"), checkpoint.read_weights(trunk)
    weight = next(name for name in given if name.startswith("backbone") and name.endswith("conv1.weight"))
    assert torch.equal(taken[weight], given[weight])
    from safetensors.torch import save_file

    save_file({"foreign": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="no tensor matches"):
        train(smoke(), shapes["train"], tmp_path / "none", init=tmp_path / "foreign.safetensors", quiet=True)
    assert not (tmp_path / "none").exists()


def test_run_folder(smoke: Smoke, shapes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    config = smoke(**{"solver.evaluate_every": 4})
    final = train(config, shapes["train"], run, val=shapes["val"], log_every=2)
    assert final == run / "final.safetensors"
    described = json.loads((run / "run.json").read_text())
    assert described["preset"] == "faster" and described["config"] == json.loads(json.dumps(config.to_dict()))
    assert described["data"]["fingerprint"] == shapes["train"].fingerprint()
    assert described["classes"] == list(shapes["train"].classes)
    assert {"git", "environment", "seed", "iterations", "command", "val"} <= described.keys()
    lines = [json.loads(line) for line in (run / "metrics.jsonl").open()]
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4, 5, 6]
    for line in lines:
        assert list(line)[:3] == ["iteration", "lr", "loss"]
        parts = [value for name, value in line.items() if name.startswith("loss_")]
        assert len(parts) == len(line) - 3 and sum(parts) == pytest.approx(line["loss"], rel=1e-5)
    timing = [json.loads(line) for line in (run / "timing.jsonl").open()]
    assert [list(line) for line in timing] == [["iteration", "wall_s", "data_s", "images_per_s", "memory_gb"]] * 3
    evaluations = [json.loads(line) for line in (run / "evaluations.jsonl").open()]
    assert [line["iteration"] for line in evaluations] == [4, 6] and all("AP" in line for line in evaluations)
    printed = capsys.readouterr().out
    assert "iteration 2/6  eta " in printed and " images/s " in printed
    # Evaluating in between leaves no trace in the training.
    train(smoke(), shapes["train"], tmp_path / "plain", quiet=True)
    assert_same_run(run, tmp_path / "plain")


def test_signal_during_evaluation_ends_at_once_and_resume_evaluates(
    smoke: Smoke, shapes: dict[str, Any], hooked: Any, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    data, val = shapes["train"], hooked(shapes["val"], stop_at(3, signal.SIGINT))
    with pytest.raises(Interrupted):
        train(smoke(), data, run, val=val, quiet=True)
    assert (run / "final.safetensors").exists() and not (run / "evaluations.jsonl").exists()
    train(smoke(), data, run, val=shapes["val"], resume=True, quiet=True)
    assert [json.loads(line)["iteration"] for line in (run / "evaluations.jsonl").open()] == [6]
