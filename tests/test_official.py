"""The authors' checkpoints: every layout is read, nothing in them is run, and the way back is exact."""

from __future__ import annotations

import json
import os
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cpm_lib
from cpm_lib import official, presets
from cpm_lib.cli import main
from cpm_lib.config import Config, Conventions, InputConfig
from cpm_lib.data.transforms import training
from cpm_lib.errors import UserError
from cpm_lib.evaluation import predict
from cpm_lib.model import build_model
from cpm_lib.official_names import COCO_CLASSES, official_name
from cpm_lib.training import checkpoint
from cpm_lib.training.card import Card
from tests.golden.filling import fill, official_state

NARROW = {
    "backbone.fpn_channels": 8, "classification.hidden": 8, "grid.channels_per_point": 4, "grid.convs": 1,
}  # fmt: skip
CASCADE = {"backbone.fpn_channels": 8, "classification.hidden": 8}
STRUCTURES = {
    "cpm": NARROW,
    "cpm-r101": NARROW,
    "cpm-x101": NARROW,
    "cpm-x101-dcn": NARROW,
    "cpm-2stage": NARROW,
    "grid": NARROW,
    "grid-fused": NARROW,
    "table1-cmm-rsm": NARROW,
    "cascade": CASCADE,
    "cascade-ism": CASCADE,
    "cascade-ism-rsm": CASCADE,
}


def narrow(preset: str) -> Config:
    """The authors' structure with thin heads; the body keeps its shapes, by which it is recognised."""
    return presets.get(preset, conventions="official").override(STRUCTURES[preset])


def random_weights(config: Config) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = build_model(config, 81).state_dict()
    return {
        name: torch.rand(like.shape, generator=generator) * 2 if like.is_floating_point() else torch.zeros_like(like)
        for name, like in shapes.items()
    }


@pytest.fixture
def settings_class(monkeypatch: pytest.MonkeyPatch) -> Callable[[], type[dict]]:
    """The authors' settings dictionary, importable only while a file is written."""

    class AttrDict(dict):
        pass

    def get() -> type[dict]:
        AttrDict.__module__, AttrDict.__qualname__ = "pet.utils.collections", "AttrDict"
        for name in ("pet", "pet.utils", "pet.utils.collections"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        sys.modules["pet.utils.collections"].AttrDict = AttrDict  # type: ignore[attr-defined]
        return AttrDict

    return get


@pytest.mark.parametrize("preset", STRUCTURES)
def test_ours_to_theirs_to_ours_is_exact_and_recognised(preset: str, tmp_path: Path) -> None:
    config = narrow(preset)
    weights = random_weights(config)
    theirs = official.to_official(weights, config)
    assert len(theirs) == len(weights) + 5  # their anchors
    torch.save({"model": theirs}, tmp_path / "theirs.pth")
    back, card = official.convert(tmp_path / "theirs.pth")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], value) for name, value in weights.items())
    assert card.config == config and card.preset == preset
    assert card.classes == COCO_CLASSES and card.num_classes == 81


def test_frozen_gains_come_back_exactly_wherever_they_lie() -> None:
    """Just below a power of two float32 has too few numbers; float64 has enough."""
    around = torch.tensor([1.0, 2.0, 0.25]).view(torch.int32)
    gains = (around[:, None] + torch.arange(-400, 400, dtype=torch.int32)).view(torch.float32).flatten()
    config = narrow("cpm")
    theirs = official.to_official({"backbone.body.bn1.weight": gains}, config)["Conv_Body.bn1.weight"]
    refold = torch.tensor(1 + 1e-5).sqrt()
    assert torch.equal((theirs / refold.to(theirs.dtype)).float(), gains)
    assert theirs.dtype == torch.float64 and (theirs.float() / gains - 1.000005).abs().max() < 1e-6


def test_small_models_survive_the_detour_through_the_command(tmp_path: Path) -> None:
    """Trained BatchNorms, another body, own classes: the card travels in the file."""
    config = presets.get("cpm", "smoke")
    model = build_model(config, 3)
    card = Card(config, ("cat", "dog"), data="shapes", seed=4, iterations=6)
    ours = checkpoint.save_weights(tmp_path / "ours.safetensors", model, card)
    assert main(["convert", str(ours), "--out", str(tmp_path / "theirs.pth"), "--reverse"]) == 0
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(tmp_path / "again.safetensors")]) == 0
    assert checkpoint.read_card(tmp_path / "again.safetensors") == card
    again = checkpoint.read_weights(tmp_path / "again.safetensors")
    assert all(torch.equal(again[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("zip_file", [True, False])
def test_full_training_checkpoint(tmp_path: Path, settings_class: Callable[[], type[dict]], zip_file: bool) -> None:
    """Prefixes, optimiser, settings class and numpy scalars, in the old and the new file format."""
    config = narrow("cpm")
    state = official.to_official(random_weights(config), config)
    settings = settings_class()({"lr": 0.02, "nested": settings_class()(steps=(1, 2))})
    settings.__dict__["immutable"] = False
    content = {
        "model": OrderedDict((f"module.{key}", value) for key, value in state.items()),
        "optimizer": {"state": {}, "param_groups": [{"lr": 0.02, "lr_scale": 2}]},
        "scheduler": {"iteration": 180_000, "solver": settings, "new_lr": np.float64(2e-4), "n": np.int64(3)},
    }
    path = tmp_path / "model_latest.pth"
    torch.save(content, path, _use_new_zipfile_serialization=zip_file)
    for name in ("pet.utils.collections", "pet.utils", "pet"):
        del sys.modules[name]
    weights, card = official.convert(path)
    assert card.iterations == 180_000 and card.config == config
    bare, _ = official.convert(_saved(tmp_path, state))
    assert all(torch.equal(weights[name], value) for name, value in bare.items())


def test_running_statistics_are_folded(tmp_path: Path) -> None:
    """g / sqrt(var + eps) of an un-converted model, without the second folding of a converted one."""
    config = narrow("cpm")
    state = official_state(config) | {
        "Conv_Body.bn1.num_batches_tracked": torch.tensor(7),
        "Norm.weight": torch.ones(3),
        "Norm.bias": torch.zeros(3),
    }
    weights, _ = official.convert(_saved(tmp_path, state))
    gain, bias, mean, var = (
        fill(f"Conv_Body.bn1.{part}", 64).double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    torch.testing.assert_close(weights["backbone.body.bn1.weight"].double(), gain / (var + 1e-5).sqrt())
    torch.testing.assert_close(weights["backbone.body.bn1.bias"].double(), bias - mean * gain / (var + 1e-5).sqrt())
    folded = {key: value for key, value in state.items() if "running" not in key}
    weights, _ = official.convert(_saved(tmp_path, folded))
    torch.testing.assert_close(
        weights["backbone.body.bn1.weight"].double(), gain * (1 + 1e-5) ** -0.5, rtol=1e-7, atol=0
    )
    assert torch.equal(weights["backbone.body.bn1.bias"], fill("Conv_Body.bn1.bias", 64))
    with pytest.raises(UserError, match=r"bn1.running_mean' is missing"):
        official.convert(_saved(tmp_path, {k: v for k, v in state.items() if k != "Conv_Body.bn1.running_mean"}))


def test_made_up_checkpoint_through_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = _saved(tmp_path, {"model": official_state(narrow("cpm"))}), tmp_path / "cpm.safetensors"
    assert main(["convert", str(source), "--out", str(out)]) == 0
    record = json.loads(out.with_suffix(".json").read_text())
    assert (record["source"], record["preset"], record["num_classes"]) == ("theirs.pth", "cpm", 81)
    assert len(record["sha256"]) == 64 and not record["left_over_keys"] and not record["missing_keys"]
    model: Any = cpm_lib.load(out, overrides={"input.test_size": 64, "input.max_size": 64})
    assert record["mapped_keys"] == len(model.state_dict()) + 106  # and two statistics of each of the 53 norms
    with torch.inference_mode():
        (found,) = model([torch.rand(3, 48, 64)])
    assert found["boxes"].shape[1] == 4 and found["stage_boxes"].shape[1:] == (3, 4)
    assert {"iou_scores", "rsm_scores"} <= found.keys()
    assert "preset cpm" in capsys.readouterr().out


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    state = official.to_official(random_weights(narrow("cpm")), narrow("cpm"))
    absent = "Grid_Cascade_RCNN.Head_cls.fc7.bias"
    lacking = {key: value for key, value in state.items() if key != absent}
    with pytest.raises(UserError, match=f"1 keys are missing for preset 'cpm', the first is '{absent}'"):
        official.convert(_saved(tmp_path, lacking))
    with pytest.raises(UserError, match=r"1 keys are left over.*'Extra.weight'"):
        official.convert(_saved(tmp_path, state | {"Extra.weight": torch.zeros(1)}))
    path = _saved(tmp_path, lacking | {"Extra.weight": torch.zeros(1)})
    accepted = official.read(path, allow_missing=True)
    assert (accepted.missing, accepted.left_over) == ((absent,), ("Extra.weight",))
    assert accepted.weights["classification.classifier.head.fc7.bias"].shape == (8,)
    assert cpm_lib.load(official.save(accepted, tmp_path / "accepted.safetensors")).config.preset == "cpm"
    with pytest.raises(UserError, match=r"Output_cls.cls_score.bias' has shape"):
        official.convert(_saved(tmp_path, state | {"Grid_Cascade_RCNN.Output_cls.cls_score.bias": torch.zeros(2)}))
    with pytest.raises(UserError, match="other anchors"):
        official.convert(_saved(tmp_path, state | {"RPN.anchor_generator.cell_anchors.2": torch.zeros(3, 4)}))
    with pytest.raises(UserError, match=r"is not 'cpm-r101': the file has backbone.name=resnet50"):
        official.read(_saved(tmp_path, state), preset="cpm-r101")
    assert official.read(_saved(tmp_path, state), preset="cpm").card.preset == "cpm"


def test_unusual_structures_are_recognised(tmp_path: Path) -> None:
    """What no preset has: ResNet-101 with four stages, no RSM, other classes."""
    config = narrow("cpm-r101").override({
        "cascade.mapping_ratios": [2.0, 1.5, 1.25, 1.125], "cascade.iou_thresholds": [0.5, 0.6, 0.7, 0.8],
        "cascade.stage_weights": [1.0, 0.5, 0.25, 0.125], "scoring.rsm": False,
    })  # fmt: skip
    state = official.to_official(random_weights(config), config)
    conversion = official.read(_saved(tmp_path, state))
    assert set(conversion.differs) == {"cascade.stages", "scoring.rsm"}
    assert conversion.card.config.cascade == config.cascade and not conversion.card.config.scoring.rsm
    body = {
        key: torch.zeros(128, 2, 3, 3) if key == "Conv_Body.layer1.0.conv2.weight" else v for key, v in state.items()
    }
    with pytest.raises(UserError, match="is none of resnet50"):
        official.convert(_saved(tmp_path, body))


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {os.environ['CPM_HOSTILE']}",)


def _hostile_archive(path: Path) -> None:
    torch.save({"model": {}, "scheduler": Hostile()}, path)


def _hostile_old_archive(path: Path) -> None:
    torch.save({"model": {}, "scheduler": Hostile()}, path, _use_new_zipfile_serialization=False)


def _hostile_pickle(path: Path) -> None:
    path.write_bytes(pickle.dumps(Hostile(), protocol=2))


@pytest.mark.parametrize("write", [_hostile_archive, _hostile_old_archive, _hostile_pickle])
def test_hostile_files_are_refused_and_run_nothing(
    write: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trace, path = tmp_path / "trace", tmp_path / "hostile.pth"
    monkeypatch.setenv("CPM_HOSTILE", str(trace))
    write(path)
    assert main(["convert", str(path), "--out", str(tmp_path / "out.safetensors")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and "refused" in lines[0] and "system" in lines[0]
    assert not trace.exists() and not (tmp_path / "out.safetensors").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"no checkpoint", "not a readable checkpoint"),
        ({"model": {"a": 1}}, "holds no state dict"),
        ([1, 2], "holds no state dict"),
        ({"fc.weight": torch.zeros(2)}, "cannot be recognised"),
    ],
)
def test_other_files_are_refused_in_one_line(
    content: Any, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "theirs.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    assert main(["convert", str(path), "--out", str(tmp_path / "out.safetensors")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and words in lines[0] and str(path) in lines[0]


def test_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, words in (
        (["absent.pth", "--out", "x.safetensors"], "no such file"),
        (["absent.pth", "--out", "x.pth"], ".safetensors"),
        (["absent.safetensors", "--out", "x.pth", "--reverse", "--preset", "cpm"], "leave out --preset"),
    ):
        assert main(["convert", *arguments]) == 2
        assert words in capsys.readouterr().err


class Fixed(torch.nn.Module):
    """Finds the same box everywhere."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config

    def forward(self, images: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
        box = torch.tensor([[2.0, 3.0, 9.0, 5.0]])
        found = {"boxes": box, "stage_boxes": box[:, None], "labels": torch.tensor([1]), "scores": torch.ones(1)}
        return [dict(found) for _ in images]


class OneImage(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> tuple[torch.Tensor, dict[str, Any]]:
        return torch.zeros(3, 10, 12), {"image_id": 5}


@pytest.mark.parametrize(("conventions", "box"), [("corrected", [2, 3, 9, 5]), ("official", [2, 3, 10, 6])])
def test_boxes_of_the_authors_detector_are_measured_with_their_last_pixel(conventions: str, box: list[float]) -> None:
    (found,) = predict(Fixed(presets.get("cpm", "smoke", conventions)), OneImage())
    assert found["boxes"].tolist() == [box] and found["stage_boxes"].tolist() == [[box]]


def test_training_boxes_of_the_authors_end_at_their_last_pixel() -> None:
    """And objects that are then empty are left out; the picture alone follows `authors_resize`."""
    target = {"boxes": torch.tensor([[0.0, 0, 12, 10], [3, 3, 4, 8]]), "labels": torch.tensor([1, 2]),
              "area": torch.tensor([120.0, 5]), "image_id": 3}  # fmt: skip
    image = torch.randint(0, 256, (3, 10, 12)) / 255
    config = InputConfig(train_sizes=(10,), max_size=20, flip=0)
    for own in (False, True):
        conventions = Conventions(pixel_plus_one=True, authors_resize=own)
        new_image, new = training(config, conventions)(image, dict(target))
        assert torch.equal(new_image, image) and new["boxes"].tolist() == [[0, 0, 11, 9]]
        assert (new["labels"].tolist(), new["area"].tolist(), new["image_id"]) == ([1], [120], 3)
    _, new = training(config, Conventions(authors_resize=True))(image, dict(target))
    assert torch.equal(new["boxes"], target["boxes"])


def test_parts_the_authors_lack() -> None:
    for preset, name in (("faster", "regressor.weight"), ("grid-original", "cascade.stages.0.convs.0.0.weight")):
        with pytest.raises(UserError, match=f"'{name}' has no counterpart"):
            official_name(name, presets.get(preset))


def _saved(folder: Path, content: Any) -> Path:
    torch.save(content, folder / "theirs.pth")
    return folder / "theirs.pth"
