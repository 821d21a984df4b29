"""Before a long run: what is fine, what to do about the rest, and what stops at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.training import checkpoint, optimisation, preflight
from cpm_lib.training.run_folder import RunFolder

Smoke = Callable[..., Config]
NAMES = ["processes", "schedule", "data", "disk", "speed", "memory", "time"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("CPM_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Instead of a training: what it would have written down; the test may change it."""
    timing = {"wall_s": 12.0, "data_s": 0.5, "memory_gb": 2.0}

    def launch(config: Config, data: str, out: Path, *, options: Sequence[str], **_: Any) -> None:
        out.mkdir()
        measured = int(options[-1])
        assert config.solver.iterations == config.solver.checkpoint_every == 2 * measured
        first = {"iteration": measured, "wall_s": 2.0, "data_s": 0.0, "memory_gb": 1.0}
        RunFolder(out).append("timing", [first, {"iteration": 2 * measured, **timing}])

    monkeypatch.setattr(preflight, "launch", launch)
    return timing


def texts(report: preflight.Report) -> dict[str, tuple[bool, str]]:
    return {check.name: (check.good, check.text) for check in report.checks}


def coco_like(folder: Path, classes: int, images: int = 2) -> str:
    """Some images in COCO's own layout."""
    (folder / "annotations").mkdir(parents=True)
    (folder / "train2017").mkdir()
    content: dict[str, Any] = {"images": [], "annotations": []}
    content["categories"] = [{"id": number, "name": f"c{number}"} for number in range(1, classes + 1)]
    for number in range(1, images + 1):
        Image.new("RGB", (64, 64)).save(folder / f"train2017/{number}.png")
        content["images"].append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        box = {"image_id": number, "category_id": 1, "bbox": [5, 5, 20, 20], "area": 400, "iscrowd": 0}
        content["annotations"].append({"id": number, **box})
    (folder / "annotations/instances_train2017.json").write_text(json.dumps(content))
    return f"coco:{folder},train"


def test_all_is_well_and_nothing_is_left_behind(smoke: Smoke, tmp_path: Path) -> None:
    out = tmp_path / "runs/mine"
    report = preflight.check(smoke(), "shapes:smoke", out, val="shapes:smoke:val", measured=1)
    assert [check.name for check in report.checks] == [*NAMES[:3], "val data", *NAMES[3:]]
    assert report.good and report.text().count("ok ") == 8
    assert max(map(len, report.text().splitlines())) <= 68
    assert report.measured.seconds > 0 and 0 < report.measured.memory_gb < 20
    assert report.hours == pytest.approx(report.measured.seconds * 6 / 3600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache"]


def test_numbers_of_the_report(smoke: Smoke, recorded: dict[str, float], tmp_path: Path) -> None:
    config = smoke(**{"solver.iterations": 36_000})
    report = preflight.check(config, "shapes:smoke", tmp_path / "run", processes=2, measured=5)
    assert report.measured == preflight.Measurement(seconds=2.0, waiting=0.05, memory_gb=2.0)
    assert report.hours == pytest.approx(20.0)
    found = texts(report)
    assert "2 x 1 images" in found["processes"][1]
    assert "36,000 iterations of 2 images, 3000.0 times" in found["schedule"][1]
    assert "24 images, 82 objects of 6 classes" in found["data"][1]
    assert found["speed"][1] == "measured 2 s per iteration, 1 images/s, 5 % of it reading images"
    assert found["memory"][1].startswith("4.8 GB by estimate (1.2 x 2.00 GB measured x 2 processes)")
    assert found["time"][1].startswith("20.0 h expected for 36,000 iterations")
    states = tmp_path / "run/checkpoints"
    states.mkdir(parents=True)
    (states / "ckpt-00030000.pt").write_bytes(b"")
    again = preflight.check(config, "shapes:smoke", tmp_path / "run", processes=2, measured=5)
    assert "3.3 h expected for 6,000 iterations that are left of 36,000" in texts(again)["time"][1]


def test_disk_is_what_the_files_take(tmp_path: Path) -> None:
    for optimiser in ("sgd", "adamw"):
        config = presets.get("cpm", "quick").override(
            {"solver.optimiser": optimiser, "solver.weight_decay": 0.01, "solver.checkpoints_kept": 3}
        )
        model = build_model(config, 7)
        made = optimisation.build_optimiser(model, config.solver)
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
        made.step()
        state = {"model": model.state_dict(), "optimiser": made.state_dict()}
        one = checkpoint.save_state(tmp_path, 1, state).stat().st_size
        weights = sum(value.nbytes for value in model.state_dict().values())
        assert preflight._disk_gb(config, 7) == pytest.approx((4 * one + weights) / 1e9, rel=0.02)


def test_what_to_do(smoke: Smoke, recorded: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    monkeypatch.setattr(preflight, "_ram_gb", lambda: 3.0)
    monkeypatch.setattr(preflight, "available_cores", lambda: 1)
    config = presets.get("cpm", "paper").override({"solver.images_per_batch": 4})
    report = preflight.check(config, "shapes:smoke", tmp_path / "run", processes=2)
    found = texts(report)
    assert not report.good and [name for name, (good, _) in found.items() if not good] == [
        "processes", "schedule", "disk", "memory",
    ]  # fmt: skip
    assert "use at most 1" in found["processes"][1]
    assert "0.02 belongs to 16 images, so this batch needs 0.005, set solver.lr=0.005" in found["schedule"][1]
    assert "lower solver.checkpoints_kept" in found["disk"][1]
    assert "4.8 GB by estimate" in found["memory"][1] and "solver.accumulate" in found["memory"][1]
    scaled = config.override({"solver.lr": 0.005})
    assert texts(preflight.check(scaled, "shapes:smoke", tmp_path / "run"))["schedule"][0]


def test_gpus(smoke: Smoke, recorded: dict[str, float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "a GPU")
    sizes = {0: 8e9, 1: 2e9}
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda n: SimpleNamespace(total_memory=sizes[n]))
    recorded["data_s"] = 4.0
    found = texts(preflight.check(smoke(), "shapes:smoke", tmp_path / "run", processes=2))
    assert found["processes"] == (True, "2 x 1 images on 2 of 2 GPUs (a GPU)")
    assert found["memory"][0] is False and "per GPU 2.4 GB" in found["memory"][1]
    assert "2.0 GB on the smallest GPU" in found["memory"][1]
    assert found["speed"][0] is False and "--workers" in found["speed"][1]
    four = smoke(**{"solver.images_per_batch": 4})
    with pytest.raises(UserError, match="4 processes but 2 GPUs"):
        preflight.check(four, "shapes:smoke", tmp_path / "run", processes=4)
    on_cpu = preflight.check(four, "shapes:smoke", tmp_path / "run", processes=4, options=("--device", "cpu"))
    assert "CPU cores" in texts(on_cpu)["processes"][1]


def test_data_that_is_not_all_there(smoke: Smoke, recorded: dict[str, float], tmp_path: Path) -> None:
    part = coco_like(tmp_path / "coco", classes=80)
    good, text = texts(preflight.check(smoke(), part, tmp_path / "run"))["data"]
    assert not good and "COCO 2017 has 118,287 images here: cpm data coco" in text and "no object of c2" in text
    own = coco_like(tmp_path / "own", classes=2)
    assert texts(preflight.check(smoke(), own, tmp_path / "run"))["data"][0]
    (tmp_path / "own/train2017/2.png").write_bytes(b"broken")
    good, text = texts(preflight.check(smoke(), own, tmp_path / "run"))["data"]
    assert not good and "1 of 2 images looked at are not readable, e.g. image 2" in text


def test_what_cannot_work(smoke: Smoke, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    other = coco_like(tmp_path / "other", classes=1)
    for words, arguments in {
        "3 processes cannot share 2 images": {"processes": 3},
        "unknown profile": {"data": "shapes:nothing"},
        "is a file": {"out": tmp_path / "file"},
        "different classes": {"val": other},
        "cannot be written": {"out": Path("/proc/none/run")},
        r"measuring the speed: .*not finite.*lower solver.lr": {"config": smoke(**{"solver.lr": 1e30})},
    }.items():
        settings = {"config": smoke(), "data": "shapes:smoke", "out": tmp_path / "run", "measured": 2, **arguments}
        with pytest.raises(UserError, match=words) as refused:
            preflight.check(**settings)
        assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists() and not list(tmp_path.glob(".preflight*"))
