"""Joint runs: rows that begin anew, records that grow, and the bar over their trainings."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import ledger, presets
from cpm_lib.ablation import joint, joint_record, paired
from cpm_lib.ablation.setting import Setting, digest, unusual
from cpm_lib.model import build_model
from cpm_lib.training import checkpoint


def test_folders_of_usual_runs_keep_their_names(setting: Setting) -> None:
    config = presets.get("faster", "smoke")
    facts = {
        "config": {key: value for key, value in unusual(config).items() if key != "preset"},
        "data": [setting.train.fingerprint(), setting.val.fingerprint()],
        "version": ledger.RESULTS_VERSION,
        "trunk": digest(paired.trunk(setting)),
    }
    assert joint.run_folder(setting, config, 1) == setting.folder("joint", 1, facts)
    fresh = joint.run_folder(setting, config, 1, ("regressor",))
    assert (
        fresh == setting.folder("joint", 1, {**facts, "fresh": ["regressor"]}) != joint.run_folder(setting, config, 1)
    )


def test_what_is_fresh_begins_as_by_seed_and_all_else_as_the_trunk(setting: Setting) -> None:
    config = presets.get("faster", "smoke")
    found = joint.beginning(setting, config, 3, ("regressor",)).state_dict()
    torch.manual_seed(3)
    new = build_model(config, len(setting.train.classes) + 1).state_dict()
    trunk = checkpoint.read_weights(paired.trunk(setting))
    assert set(found) == set(trunk)
    for name, value in found.items():
        assert torch.equal(value, (new if name.startswith("regressor.") else trunk)[name]), name
    assert not torch.equal(found["regressor.weight"], trunk["regressor.weight"])


def test_a_record_without_a_row_or_a_difference_is_extended(
    setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(joint_record, "ROWS", {"table9": ("faster",)})
    before = joint_record.record(setting, "table9", (0, 1))
    assert "beside" not in before.metrics
    trained: list[int] = []
    train = joint.train

    def counting(*arguments: Any, seed: int, **options: Any) -> Path:
        trained.append(seed)
        return train(*arguments, seed=seed, **options)

    monkeypatch.setattr(joint, "train", counting)
    monkeypatch.setattr(joint_record, "ROWS", {"table9": ("faster", "faster-fresh")})
    monkeypatch.setattr(joint_record, "BESIDE", {"table9": (("faster", "faster-fresh"),)})
    monkeypatch.setenv("CPM_PROGRESS", "1")
    capfd.readouterr()
    record = joint_record.record(setting, "table9", (0,))
    said = capfd.readouterr().err
    assert "training 1 of 2: faster-fresh, seed 0" in said and "training 2 of 2: faster-fresh, seed 1" in said
    assert trained == [0, 1] and record.metrics["seeds"] == [0, 1], "seeds of the record, runs that are there kept"
    assert record.metrics["rows"]["faster"] == before.metrics["rows"]["faster"]
    assert record.metrics["configs"]["faster-fresh"]["fresh"] == ["regressor"]
    rows = {name: row["last"]["AP"]["seeds"] for name, row in record.metrics["rows"].items()}
    gains = [one - other for one, other in zip(rows["faster"], rows["faster-fresh"], strict=True)]
    beside = record.metrics["beside"]["faster - faster-fresh"]["AP"]
    assert beside["difference"] == pytest.approx(sum(gains) / 2) and beside["samples"] == 2
    assert record.differences == before.differences, "no claim is judged by it"
    assert ledger.read(record.id).metrics["seeds"] == [0, 1]
    assert joint_record.record(setting, "table9", (1,)) == ledger.read(record.id)
    lacking = dataclasses.replace(record, metrics={k: v for k, v in record.metrics.items() if k != "beside"})
    ledger.write(lacking)
    assert "beside" in joint_record.record(setting, "table9", (0,)).metrics and trained == [0, 1]


def test_the_rows_beside_are_rows_of_their_tables() -> None:
    for table, pairs in joint_record.BESIDE.items():
        assert {name for pair in pairs for name in pair} <= set(joint_record.ROWS[table])
