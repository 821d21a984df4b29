"""Fine-tuning: what is taken over, what is made anew, and a warning where weights would mean something else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from cpm_lib import presets
from cpm_lib.cli import main
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import Detector, build_model
from cpm_lib.official_names import COCO_CLASSES
from cpm_lib.training import checkpoint
from cpm_lib.training.card import Card
from cpm_lib.training.initialisation import initialise

OWN = ("bolt", "nut", "washer")
HEADS = {"classification.classifier.predictor", "resampling.classifier.predictor"}


def save(path: Path, config: Config, classes: tuple[str, ...] = COCO_CLASSES) -> Path:
    torch.manual_seed(1)
    card = Card(config, classes, data="elsewhere")
    return checkpoint.save_weights(path, build_model(config, card.num_classes), card)


def fresh(config: Config, classes: tuple[str, ...] = OWN) -> Detector:
    torch.manual_seed(2)
    return build_model(config, len(classes) + 1)


@pytest.mark.parametrize(
    ("preset", "heads"),
    [
        ("cpm", HEADS),
        ("faster", {"classification.classifier.predictor", "regressor"}),
        ("cascade-rsm", {*HEADS, "later.0.predictor"}),
    ],
)
def test_only_class_wise_heads_are_made_anew(
    preset: str, heads: set[str], smoke: Callable[..., Config], tmp_path: Path
) -> None:
    config = smoke(preset)
    path = save(tmp_path / "coco.safetensors", config)
    model, given = fresh(config), checkpoint.read_weights(path)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told, warning = initialise(model, path, OWN)
    for name, value in model.state_dict().items():
        assert torch.equal(value, (before if name.rpartition(".")[0] in heads else given)[name]), name
    count = len(before)
    assert told.splitlines() == [
        f"initialised {count - 2 * len(heads)} of {count} tensors from {path}",
        f"  re-made for 3 classes (80 in the checkpoint): {', '.join(sorted(heads))}",
    ]
    assert warning == ""


def test_as_many_classes_with_other_names_or_in_another_order(smoke: Callable[..., Config], tmp_path: Path) -> None:
    config = smoke("cpm")
    path = save(tmp_path / "own.safetensors", config, OWN)
    model = fresh(config)
    assert len(initialise(model, path, OWN)[0].splitlines()) == 1
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in checkpoint.read_weights(path).items())
    told, _ = initialise(fresh(config), path, OWN[::-1])
    assert "re-made for 3 classes (in the checkpoint others, or in another order: bolt, nut, washer)" in told


def test_parts_that_only_one_of_them_has(smoke: Callable[..., Config], tmp_path: Path) -> None:
    path = save(tmp_path / "trunk.safetensors", smoke("faster", **{"classification.hidden": 24}))
    told, warning = initialise(fresh(smoke("cpm")), path, OWN)
    lines = told.splitlines()
    assert lines[1] == "  re-made for 3 classes (80 in the checkpoint): classification.classifier.predictor"
    assert lines[2] == "  re-made, of another size in the checkpoint: 4 tensors in classification"
    assert lines[3].startswith("  new, not in the checkpoint: ")
    assert lines[3].endswith(" tensors in cascade, iou_scoring, resampling")
    assert lines[4] == "  not used: 2 tensors in regressor"
    assert warning == ""


def test_bare_weights_and_foreign_ones(smoke: Callable[..., Config], tmp_path: Path) -> None:
    model = fresh(smoke())
    body = {k: torch.ones(v.shape) for k, v in model.state_dict().items() if k.startswith("backbone.body.")}
    save_file(body, tmp_path / "body.safetensors")
    told, warning = initialise(model, tmp_path / "body.safetensors", OWN)
    assert told.startswith(f"initialised {len(body)} of ") and warning == ""
    save_file({"foreign": torch.zeros(2)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="no tensor matches"):
        initialise(model, tmp_path / "foreign.safetensors", OWN)


def test_warning_names_settings_and_the_way_out(smoke: Callable[..., Config], tmp_path: Path) -> None:
    official = presets.get("cpm", "smoke", conventions="official").override({"backbone.norm": "frozen"})
    path = save(tmp_path / "coco.safetensors", official)
    assert initialise(fresh(official), path, OWN)[1] == ""
    _, warning = initialise(fresh(smoke("cpm")), path, OWN)
    assert warning == (
        f"warning: the weights of {path} were trained with conventions.pixel_plus_one=true (here false), "
        "backbone.norm=frozen (here batch) and mean something else in this run; to train as the checkpoint was "
        "leave out --preset, --profile and --conventions, or add "
        "--set conventions.pixel_plus_one=true backbone.norm=frozen"
    )
    changes: dict[str, Any] = {"grid.map_size": 28, "cascade.mapping_ratios": (2.0, 1.5, 1.125)}
    _, warning = initialise(fresh(official.override(changes)), path, OWN)
    assert warning.endswith("--set grid.map_size=56 'cascade.mapping_ratios=[2.0,1.5,1.25]'")
    # One stage takes the first of three over as it is; Faster R-CNN has no use for the grid's settings at all.
    assert initialise(fresh(smoke("grid")), save(tmp_path / "cpm.safetensors", smoke("cpm")), OWN)[1] == ""
    assert initialise(fresh(smoke("faster", **{"grid.map_size": 28})), tmp_path / "cpm.safetensors", OWN)[1] == ""


# ---- through the command


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A VOC folder with three classes; no picture to train on shows a washer."""
    root = tmp_path / "photos"
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, names in {"train": ("bolt", "nut", "bolt"), "val": ("nut", "washer")}.items():
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(f"{split} {i}" for i in range(len(names))))
        for number, name in enumerate(names):
            Image.new("RGB", (64, 64), (40 * number, 90, 90)).save(root / f"JPEGImages/{split} {number}.jpg")
            box = "<xmin>5</xmin><ymin>9</ymin><xmax>40</xmax><ymax>50</ymax>"
            (root / f"Annotations/{split} {number}.xml").write_text(
                f"<annotation><object><name>{name}</name><bndbox>{box}</bndbox></object></annotation>"
            )
    return root


def test_from_the_authors_layout_to_own_classes(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = presets.get("cpm", "smoke", conventions="official")
    ours = save(tmp_path / "ours.safetensors", config)
    assert main(["convert", str(ours), "--out", str(tmp_path / "theirs.pth"), "--reverse"]) == 0
    converted = tmp_path / "converted.safetensors"
    assert main(["convert", str(tmp_path / "theirs.pth"), "--out", str(converted)]) == 0
    capsys.readouterr()
    data = ["--data", f"voc:{photos},train", "--val", f"voc:{photos},val", "--iterations", "1"]
    # A raw IoU score below zero makes NaN of the fused one; after one iteration all of them are.
    changes = ["solver.images_per_batch=3", "backbone.norm=frozen", "conventions.ism_clamp=true"]
    command = ["train", "--init", str(converted), *data, "--set", *changes]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr()
    assert "learning rate 0.002 x 3/2 = 0.003" in said.out
    assert f"re-made for 3 classes (80 in the checkpoint): {', '.join(sorted(HEADS))}" in said.out
    assert "warning: no object of washer in --data to learn from" in said.err
    assert "backbone.norm=batch (here frozen)" in said.err and "pixel_plus_one" not in said.err
    card = checkpoint.read_card(tmp_path / "run")
    assert (card.classes, card.config.conventions) == (OWN, replace(config.conventions, ism_clamp=True))
    assert checkpoint.load(tmp_path / "run").num_classes == 4


def test_mistakes(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "theirs.pth").write_bytes(b"")
    for options, words in (
        ([], "give --preset NAME, or --init CKPT"),
        (["--init", "c.safetensors", "--profile", "quick"], "leave out --profile and --conventions"),
        (["--init", str(tmp_path / "none")], "no such checkpoint"),
        (["--init", str(tmp_path / "theirs.pth")], "theirs.pth: a checkpoint of the authors is converted first"),
    ):
        assert main(["train", "--data", f"voc:{photos}", "--out", str(tmp_path / "run"), *options]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and words in lines[0], lines
    assert not (tmp_path / "run").exists()
