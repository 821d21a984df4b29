"""Loading what was saved, and one clear line for everything that is not it."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.training import checkpoint, load, read_card, train
from cpm_lib.training.card import Card

CLASSES = ("disk", "square")


@pytest.fixture
def saved(smoke: Callable[..., Config], tmp_path: Path) -> Path:
    config = smoke()
    card = Card(config, CLASSES, data="made up", fingerprint="f", seed=3, iterations=6, git="0" * 40)
    return checkpoint.save_weights(tmp_path / "model.safetensors", build_model(config, 3), card)


def altered(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> Path:
    weights, metadata = checkpoint.read_weights(path), read_card(path).metadata()
    change(weights, metadata)
    save_file(weights, path.parent / "altered.safetensors", metadata=metadata)
    return path.parent / "altered.safetensors"


def test_round_trip(saved: Path) -> None:
    card = read_card(saved)
    assert (card.classes, card.num_classes, card.preset) == (CLASSES, 3, "faster")
    assert (card.data, card.fingerprint, card.seed, card.iterations) == ("made up", "f", 3, 6)
    model = load(saved)
    assert not model.training and model.num_classes == 3
    weights = checkpoint.read_weights(saved)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_overrides_change_the_configuration(saved: Path) -> None:
    assert load(saved, overrides={"conventions.rois_at_test": 7}).config.conventions.rois_at_test == 7


def test_run_folder_and_unfinished_run(
    smoke: Callable[..., Config], shapes: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    final = train(smoke(), shapes["train"], tmp_path / "run", quiet=True)
    assert checkpoint.locate(tmp_path / "run") == final
    assert read_card(final).classes == shapes["train"].classes
    whole = load(final).state_dict()
    final.unlink()
    newest = load(tmp_path / "run")
    assert "not finished, using ckpt-00000006.pt" in capsys.readouterr().err
    assert all(torch.equal(value, whole[name]) for name, value in newest.state_dict().items())


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("code was run",))


def test_code_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"model": {}, "card": Code()}, tmp_path / "bad.pt")
    with pytest.raises(UserError, match=r"bad.pt: refused.*pickled code") as refused:
        load(tmp_path / "bad.pt")
    assert "\n" not in str(refused.value)
    (tmp_path / "worse.pt").write_bytes(pickle.dumps(Code()))
    with pytest.raises(UserError, match="not a readable checkpoint"):
        load(tmp_path / "worse.pt")
    assert "code was run" not in capsys.readouterr().out


def test_bad_files(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "cut.safetensors").write_bytes(saved.read_bytes()[:-100])
    (tmp_path / "empty").mkdir()
    save_file({"weight": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    torch.save({"weight": torch.zeros(1)}, tmp_path / "foreign.pt")
    for name, message in {
        "missing.safetensors": "no such checkpoint",
        "text.safetensors": "not a readable checkpoint",
        "cut.safetensors": "not a readable checkpoint",
        "empty": "no checkpoint in this folder",
        "foreign.safetensors": "not a checkpoint of this library",
        "foreign.pt": "not a checkpoint of this library",
    }.items():
        with pytest.raises(UserError, match=message) as refused:
            load(tmp_path / name)
        assert name in str(refused.value) and "\n" not in str(refused.value)


def test_other_preset_or_classes(saved: Path) -> None:
    assert load(saved, preset="faster", num_classes=3)
    with pytest.raises(UserError, match="holds preset 'faster', not 'cpm'"):
        load(saved, preset="cpm")
    with pytest.raises(UserError, match=r"3 classes with background \(disk, square\), 81 are asked for"):
        load(saved, num_classes=81)


def test_contradictions_inside_the_file(saved: Path) -> None:
    def classes(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata.update(classes=json.dumps(["a", "b", "c"]), num_classes="4")

    def number(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata["num_classes"] = "81"

    def missing(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        del weights[next(iter(weights))]

    def unknown(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        weights["surplus"] = torch.zeros(1)

    def setting(weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
        metadata["config"] = json.dumps({"presett": "cpm"})

    for change, message in {
        classes: r"' has shape \[3.*needs \[4",
        number: "says 81 classes",
        missing: "is missing",
        unknown: "'surplus' is unknown",
        setting: "unknown setting 'presett'; did you mean 'preset'",
    }.items():
        with pytest.raises(UserError, match=message):
            load(altered(saved, change))


def test_full_disk_keeps_the_old_checkpoint(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkpoint.save_state(saved.parent, 1, {"model": {}, "card": {}})
    before = path.read_bytes()

    def full(*arguments: Any) -> None:
        raise RuntimeError("PytorchStreamWriter failed writing file\n(details)")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="cannot be written"):
        checkpoint.save_state(saved.parent, 1, {"model": {}, "card": {}})
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
