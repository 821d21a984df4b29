"""`cpm ablate --list`: complete means that a run would make nothing new."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from cpm_lib import ledger
from cpm_lib.ablation import joint_record
from cpm_lib.ablation.experiments import EXPERIMENTS, PAIRED, Source
from cpm_lib.ablation.listing import listing, total
from cpm_lib.ablation.setting import Setting, digest, plain, record_id, shipped_trunk
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record
from cpm_lib.presets import get

DATA = "voc:none"
"""Data that are never opened; a listing does not ask for them."""
INPUTS = {"train": "t", "trunk": digest(shipped_trunk())}
TABLE3 = next(source for source in EXPERIMENTS["table3"].sources if source.name == "joint-table3")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path))
    return tmp_path


def joint(source: Source, seeds: tuple[int, ...], data: str = DATA, **changes: Any) -> Record:
    """A record of several trainings as a run of today would make it, two CPU minutes each."""
    assert source.settings is not None
    configs = plain(source.settings("quick"))
    table = source.name.removeprefix("joint-")
    beside = {f"{one} - {other}": {} for one, other in joint_record.BESIDE.get(table, ())}
    metrics = {"seeds": list(seeds), "configs": configs, "rows": {}, "beside": beside}
    made = Record(
        record_id(source.name, "quick", data, 0), "", "E2", profile="quick", data=f"{data},val", metrics=metrics,
        data_fingerprint="v", inputs=INPUTS, cpu_s=120.0 * len(configs) * len(seeds), created="2026-01-02",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def paired(seed: int, **changes: Any) -> Record:
    from cpm_lib.ablation.paired import paired_config

    made = ledger.make(
        record_id("paired", "quick", DATA, seed), "", "E2", config=paired_config("quick"), seed=seed, inputs=INPUTS,
        data=f"{DATA},val", data_fingerprint="v", cpu_s=600.0, created=f"2026-01-0{seed + 1}",
    )  # fmt: skip
    return dataclasses.replace(made, **changes)


def row(name: str, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    (found,) = listing("quick", DATA, seeds, [name])
    return found


def test_all_seeds_have_to_be_there(folder: Path) -> None:
    ledger.write(joint(TABLE3, (0,)))
    found = row("table3")
    assert found["status"] == "0 of 1 records, without seed 1, seed 2" and found["seeds"] == [0]
    # Four presets, two seeds, two minutes.
    assert found["to_go_min"] == pytest.approx(16) and found["cost"] == "8 CPU min; about 16 CPU min to go"
    ledger.write(joint(TABLE3, (0, 1, 2)))
    assert row("table3")["status"] == "complete" and row("table3")["cost"] == "24 CPU min"
    assert row("table3", (5,))["status"] == "0 of 1 records, without seed 5"
    assert row("table3", (0, 1, 2, 3, 4))["lacking"] == ["seed 3", "seed 4"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"inputs": {**INPUTS, "trunk": "other"}}, "trunk"),
        ({"inputs": {}}, "trunk"),
        ({"results_version": ledger.RESULTS_VERSION + 1}, "results version"),
        ({"config": get("cpm", "quick").override({"solver.lr": 0.5}).to_dict()}, "configuration"),
        ({"config": {"no such setting": 1}}, "configuration"),
    ],
)
def test_a_record_of_something_else_is_stale(folder: Path, changes: dict[str, Any], reason: str) -> None:
    for seed in (0, 1, 2):
        ledger.write(paired(seed))
    assert row("table4")["status"] == "complete"
    ledger.write(paired(1, **changes))
    found = row("table4")
    assert found["status"] == f"2 of 3 records, 1 stale ({reason})"
    assert found["stale"] == {record_id("paired", "quick", DATA, 1): reason} and found["seeds"] == [0, 2]


def test_a_joint_record_of_other_settings_is_stale_and_one_without_a_row_is_short(folder: Path) -> None:
    made = joint(TABLE3, (0, 1, 2))
    configs = {name: dict(settings) for name, settings in made.metrics["configs"].items()}
    first = next(iter(configs))
    less = {name: settings for name, settings in configs.items() if name != first}
    ledger.write(dataclasses.replace(made, metrics={**made.metrics, "configs": less}))
    assert row("table3")["lacking"] == [first]
    configs[first]["solver.lr"] = 0.5
    ledger.write(dataclasses.replace(made, metrics={**made.metrics, "configs": configs}))
    assert row("table3")["stale"] == {made.id: "configuration"}
    assert row("table3")["to_go_min"] == pytest.approx(24), "nothing of a stale record is taken for trained"
    ledger.write(dataclasses.replace(made, metrics={**made.metrics, "beside": {}}))
    assert row("table3")["lacking"] == ["differences beside the claims"]
    assert row("table3")["cost"] == "24 CPU min; evaluations to go"


def test_shapes_that_are_there_are_compared(setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CPM_RESULTS", str(setting.runs.parent / "listed"))
    inputs = setting.inputs()
    made = ledger.read("paired-smoke", results)
    for changes, status in (
        ({}, "complete"),
        ({"data_fingerprint": "other"}, "0 of 1 records, 1 stale (data)"),
        ({"inputs": {**inputs, "train": "other"}}, "0 of 1 records, 1 stale (data)"),
    ):
        ledger.write(dataclasses.replace(made, **changes))
        (found,) = listing("smoke", None, (0,), ["table4"])
        assert found["status"] == status


def test_the_oldest_record_is_named_and_records_without_a_time_are(folder: Path) -> None:
    for seed in (0, 1, 2):
        ledger.write(paired(seed, cpu_s=None if seed == 1 else 600.0))
    found = row("table4")
    assert found["created"] == "2026-01-01" and found["cost"] == "20 CPU min, 1 record without a time*"
    assert total("quick", DATA) == "All 3 records, each once: 20 CPU min, 1 record without a time."


def test_prices_of_what_is_missing(folder: Path) -> None:
    assert row("table4")["cost"] == "13 CPU min per seed*", "nothing was measured at this profile"
    ledger.write(paired(0))
    assert row("table4")["to_go_min"] == pytest.approx(20)
    assert row("fig5")["to_go_min"] is None, "no diagnosis was measured"
    assert row("table2")["to_go_min"] is None, "no joint run was measured"
    ledger.write(joint(TABLE3, (0, 1, 2)))
    trainings = len(EXPERIMENTS["table2"].sources[0].settings("quick"))  # type: ignore[misc]
    assert row("table2")["to_go_min"] == pytest.approx(2 * 3 * trainings)


def test_what_is_shared_is_marked(folder: Path) -> None:
    rows = {found["name"]: found for found in listing("quick", DATA)}
    paired_too = {name for name, one in EXPERIMENTS.items() if PAIRED in one.sources} - {"table4"}
    assert paired_too < set(rows["table4"]["shared"]), "and the diagnosis, which starts from its heads"
    assert {"table1", "fig8", "switches", "outside"} <= set(rows["table2"]["shared"]), "trainings of equal settings"
    assert rows["table3"]["shared"] == rows["table8"]["shared"] == rows["table7"]["shared"] == []


def test_quoted_rows(folder: Path) -> None:
    found = row("table7")
    assert found["status"] == "quoted, not run: COCO test-dev" and found["cost"] == "-"
    assert (found["level"], found["records"], found["also on"]) == ("", [], [])


@pytest.mark.parametrize(
    ("profile", "source", "words"),
    [
        ("paper", None, "profile 'paper': ablations run at smoke, quick, gpu"),
        ("quick", "nonsense", "both splits are needed, so name none"),
        ("quick", "shapes:quick:val", "both splits are needed, so name none"),
        ("quick", "vco:root", "unknown kind of data 'vco'; did you mean 'voc'"),
        ("quick", "shapes:quik", "unknown profile 'quik'; did you mean 'quick'"),
    ],
)
def test_what_a_run_refuses_is_refused(profile: str, source: str | None, words: str) -> None:
    with pytest.raises(UserError, match=words):
        listing(profile, source)
