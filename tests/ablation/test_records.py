"""Records of the experiments at smoke size: complete, made once, and made again when something changes."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import ledger, presets
from cpm_lib.ablation import augmented, diagnosis, joint, joint_record, paired, paired_record, paired_rows, speed
from cpm_lib.ablation import setting as settings
from cpm_lib.ablation.experiments import EXPERIMENTS
from cpm_lib.ablation.paired_heads import SCORED
from cpm_lib.ablation.setting import Setting
from cpm_lib.claims import read_claims
from cpm_lib.errors import UserError
from cpm_lib.evaluation import evaluate, rescore
from cpm_lib.ledger import Record

CLAIMS = {claim.id: claim for claim in read_claims(Path(__file__).resolve().parents[2] / "data" / "claims.json")}


def decided(record: Record) -> dict[str, list[str]]:
    return {
        f"{place}.{name}": list(parts) for place, claims in record.differences.items() for name, parts in claims.items()
    }


def test_every_claim_that_shapes_can_decide_has_an_experiment(records: dict[str, Record]) -> None:
    found = decided(records["paired"]) | decided(records["diagnosis"])
    found |= {id: list(CLAIMS[id].values) for id in (*joint_record.PAIRS, *joint_record.SPECIAL)}
    wanted = {claim.id for claim in CLAIMS.values() if claim.tolerance.sign and claim.tolerance.level in ("E1", "E2")}
    assert {*found, augmented.CLAIM_ID} == wanted
    assert all(set(parts) == set(CLAIMS[id].values) for id, parts in found.items())


def test_intervals_agree_with_how_claims_are_judged(records: dict[str, Record]) -> None:
    by_images = {*decided(records["paired"]), *decided(records["diagnosis"])}
    assert {CLAIMS[id].tolerance.interval for id in by_images} == {"images"}
    assert {CLAIMS[id].tolerance.interval for id in (*joint_record.PAIRS, *joint_record.SPECIAL)} == {"seeds"}


def test_a_record_says_how_it_was_made(records: dict[str, Record], setting: Setting) -> None:
    record = records["paired"]
    assert (record.id, record.level, record.profile, record.seed) == ("paired-smoke", "E1", "smoke", 0)
    assert record.data_fingerprint == setting.val.fingerprint() and record.cpu_s and record.cpu_s > 0
    assert "undertrained" in record.notes and "share one trunk" in record.notes and record.interval is not None
    assert json.loads(json.dumps(dataclasses.asdict(record))) == dataclasses.asdict(record)
    assert records["diagnosis"].id == "diagnosis-smoke"


def test_rows_are_those_of_the_library(setting: Setting, records: dict[str, Record]) -> None:
    config = paired.paired_config("smoke")
    found = paired.detections(setting, config, 0)
    last = paired_rows.view(found, 3, config.scoring.gamma)
    rows = paired_rows.rows(found, config.scoring.gamma)
    names = {"cls": "cls", "cls_ism": "ism", "cls_rsm": "rsm", "fused": "fused"}
    for score, name in names.items():
        for one, other in zip(rescore(last, score, config.scoring.gamma), rows[f"falling3-{name}"], strict=True):
            assert torch.equal(one["boxes"], other["boxes"]) and torch.allclose(one["scores"], other["scores"])
    assert set(rows) == set(records["paired"].metrics["rows"])
    assert all(f"{box}-n0" in rows for box in SCORED)
    expected = evaluate(rows["falling2-fused"], setting.val)
    assert records["paired"].metrics["rows"]["falling2-fused"]["AP"] == expected["AP"]


def test_what_is_there_is_read_and_what_is_stale_is_not(
    results: Path, setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = paired.paired_config("smoke")
    monkeypatch.setattr(paired, "detections", lambda *_: pytest.fail("measured again"))
    assert paired_record.record(setting, 0).id == "paired-smoke"
    assert diagnosis.record(setting, 0).id == "diagnosis-smoke"
    assert setting.found("paired-smoke", config.override({"solver.lr": 1.0})) is None
    assert setting.found("paired-smoke-s1", config) is None
    with monkeypatch.context() as patch:
        patch.setattr(settings, "shipped_trunk", lambda: Path(__file__))
        assert setting.found("paired-smoke", config) is None, "another trunk, other numbers"
    other = dataclasses.replace(setting, train=setting.val)
    assert other.found("paired-smoke", config) is None, "other training data, other numbers"
    monkeypatch.setattr(ledger, "RESULTS_VERSION", ledger.RESULTS_VERSION + 1)
    assert setting.found("paired-smoke", config) is None


def test_an_interrupted_training_goes_on(setting: Setting, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = paired.paired_config("smoke")
    there = dataclasses.replace(setting, runs=tmp_path)
    monkeypatch.setattr(paired, "trunk", lambda _: trunk)
    trunk = next(setting.runs.glob("trunk-*")) / "final.safetensors"

    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(paired.evaluation, "predict", interrupted)
        with pytest.raises(KeyboardInterrupt):
            paired.detections(there, config, 0)
    run = paired.run_folder(there, config, 0)
    assert (run / "final.safetensors").is_file() and not (run / "detections.pt").exists()
    spent = settings.cost(run)
    monkeypatch.setattr(paired, "train", lambda *_, **__: pytest.fail("trained again"))
    again = paired.detections(there, config, 0)
    assert settings.cost(run)["wall_s"] >= spent["wall_s"]
    for one, other in zip(again, paired.detections(setting, config, 0), strict=True):
        assert torch.equal(one["at"]["falling3"], other["at"]["falling3"]), "the same seed gives the same run"


def test_joint_runs(setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(joint_record.ROWS, "table3", ("cascade-ism-rsm",))  # type: ignore[index]
    record = joint_record.record(setting, "table3", (0, 1))
    row = record.metrics["rows"]["cascade-ism-rsm"]["last"]["AP"]
    assert record.seed is None and len(row["seeds"]) == 2 and record.metrics["seeds"] == [0, 1]
    assert record.differences["table3"]["ism-gain"]["AP"]["samples"] == 2
    assert joint_record.record(setting, "table3", (0,)) == ledger.read("joint-table3-smoke")
    asked: list[int] = []
    monkeypatch.setattr(
        joint, "run", lambda _, config, seed, **fresh: asked.append(seed) or {"last": {}, "stage2-cls": {}}
    )
    with pytest.raises(KeyError):  # these rows are empty
        joint_record.record(setting, "table3", (5,))
    assert asked == [0, 1, 5], "a record keeps the seeds that it has"
    one = presets.get("cpm-2stage", "smoke")
    same = presets.get("table1-all", "smoke")
    assert joint.run_folder(setting, one, 0) == joint.run_folder(setting, same, 0), "equal settings share a run"


def test_two_processes_do_not_share_a_run_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with (
        settings.spending(run),
        pytest.raises(UserError, match="another process is at work here"),
        settings.spending(run),
    ):
        pass
    with settings.spending(run):
        pass
    assert settings.cost(run)["wall_s"] >= 0


def test_a_switch_at_test_needs_one_training(setting: Setting, results: Path) -> None:
    record = joint_record.switch_record(setting, "clip_boxes", (0,))
    assert record.id == "switch-clip-boxes-smoke" and set(record.metrics["rows"]) == {"corrected", "official"}
    assert record.differences["switches"]["clip_boxes"]["AP"]["low"] is None, "one seed has no interval"
    folder = joint.run_folder(setting, presets.get("cpm", "smoke"), 0)
    assert len(list(folder.glob("rows-*.json"))) == 2


def test_speed(setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "REPEATS", 2)
    record = speed.record(setting)
    assert (record.id, record.level, record.profile) == ("speed-smoke", "E0", "smoke")
    parts = decided(record)
    wanted = {claim.id for claim in CLAIMS.values() if claim.kind == "speed" and claim.tolerance.sign}
    assert set(parts) == wanted and all(set(parts[id]) == set(CLAIMS[id].values) for id in wanted)
    assert record.differences["table8"]["cpm-faster-than-grid"]["saved-percent"]["samples"] == speed.REPEATS
    assert speed.record(setting) == ledger.read("speed-smoke"), "timed once"
    halves = {"rows": [{"name": "cpm", "walls_s": [1.0, 3.0]}, {"name": "grid", "walls_s": [2.0, 6.0]}]}
    found = speed.quantities("sec4-2-1.slower-than-plus", {"cpm - grid": halves})["extra-percent"]
    assert (found["difference"], found["low"], found["high"]) == (-50.0, -50.0, -50.0)


def test_names_of_records_and_splits() -> None:
    assert settings.record_id("paired", "quick", "shapes:quick", 0) == "paired-quick"
    assert settings.record_id("paired", "quick", "shapes:quick", 2) == "paired-quick-s2"
    assert settings.record_id("paired", "quick", "voc:/data/BCCD/", 1) == "paired-quick-bccd-s1"
    assert settings.splits("voc:/data/bccd") == ("voc:/data/bccd,train", "voc:/data/bccd,val")
    assert [settings.level_of(text) for text in ("shapes:quick", "voc:x", "coco:x")] == ["E1", "E2", "E3"]
    for text in ("shapes:quick:val", "voc:x,train", "shapes:"):
        with pytest.raises(UserError, match="name none"):
            settings.splits(text)
    with pytest.raises(UserError, match="ablations run at smoke, quick, gpu"):
        Setting.open("paper")


def test_printed_rows_exist(records: dict[str, Record]) -> None:
    from cpm_lib.ablation.tables import content

    for experiment in EXPERIMENTS.values():
        assert all(not shown.paper or shown.paper in CLAIMS for shown in experiment.rows)
        read = [records[source.name] for source in experiment.sources if source.name in records]
        shown = [shown for shown in experiment.rows if shown.record in records]
        assert [row["name"] for row in content(experiment, read)["rows"]] == [row.name for row in shown]
