"""One rule judges all claims, and the register is written in its own form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpm_lib.ablation import report, verdict
from cpm_lib.ablation.verdict import judge, outcome, status, write_statuses
from cpm_lib.claims import STATUSES, Claim, Tolerance, read_claims
from cpm_lib.ledger import Record

PLUS = Tolerance(level="E1", sign="+", interval="images")


def quantity(low: float, high: float, samples: int = 1000) -> dict[str, Any]:
    return {"difference": (low + high) / 2, "low": low, "high": high, "sd": 0.1, "samples": samples}


def record(id: str, *, profile: str = "quick", level: str = "E1", seed: int | None = 0, **parts: Any) -> Record:
    return Record(id, "", level, profile=profile, seed=seed, differences={"table1": {"gain": parts}})


def claim(tolerance: Tolerance = PLUS, **values: float | None) -> Claim:
    return Claim(
        "table1.gain", "Table 1", "difference", "", "x > 0", values or {"AP": 0.8}, tolerance, (), "not run", ""
    )


@pytest.mark.parametrize(
    ("tolerance", "low", "high", "expected"),
    [
        ({"sign": "+"}, 0.1, 0.5, "holds"),
        ({"sign": "+"}, -0.1, 0.5, "open"),
        ({"sign": "+"}, -0.5, -0.1, "other side"),
        ({"sign": "-"}, -0.5, -0.1, "holds"),
        ({"sign": "-"}, 0.1, 0.5, "other side"),
        ({"sign": "+", "min": 1.0}, 1.1, 2.0, "holds"),
        ({"sign": "+", "min": 1.0}, 0.5, 2.0, "sign only"),
        ({"sign": "+", "min": 1.0}, -0.5, 2.0, "open"),
        ({"sign": "+", "max": 0.7}, 0.1, 0.6, "holds"),
        ({"sign": "+", "max": 0.7}, 0.6, 0.8, "sign only"),
        ({"sign": "+", "max": 0.7}, 0.8, 0.9, "other side"),
        ({"sign": "0", "within": 0.1}, -0.05, 0.09, "holds"),
        ({"sign": "0", "within": 0.1}, -0.3, 0.05, "open"),
        ({"sign": "0", "within": 0.1}, -0.3, -0.15, "other side"),
    ],
)
def test_where_an_interval_lies(tolerance: dict[str, Any], low: float, high: float, expected: str) -> None:
    assert outcome(Tolerance(level="E1", interval="images", **tolerance), quantity(low, high)) == expected


def test_an_undefined_interval_resolves_nothing() -> None:
    assert outcome(PLUS, {"difference": None, "low": None, "high": None}) == "open"


@pytest.mark.parametrize(
    ("outcomes", "expected"),
    [
        (["holds", "holds"], "reproduced"),
        (["holds", "other side"], "partly"),
        (["sign only", "open"], "partly"),
        (["open", "open"], "not resolved"),
        (["open", "other side"], "contradicted"),
        (["sign only", "other side"], "contradicted"),
    ],
)
def test_parts_make_a_status(outcomes: list[str], expected: str) -> None:
    assert status(outcomes) == expected


def test_every_seed_of_the_largest_profile_is_a_part() -> None:
    records = [
        record("paired-quick", AP=quantity(0.1, 0.3)),
        record("paired-quick-s1", seed=1, AP=quantity(-0.1, 0.3)),
        record("paired-smoke", profile="smoke", AP=quantity(-9, -8)),
        record("paired-quick-photos", level="E2", AP=quantity(-9, -8)),
    ]
    found = judge(claim(), records)
    assert (found.status, found.level) == ("partly", "E1")
    assert found.records == (
        "paired-quick:differences.table1.gain",
        "paired-quick-s1:differences.table1.gain",
    )
    assert judge(claim(), records, "E2").status == "contradicted"
    larger = [*records, record("paired-gpu", profile="gpu", AP=quantity(0.1, 0.3))]
    assert judge(claim(), larger).status == "reproduced"
    assert judge(claim(), [records[2]]).status == "not run", "smoke never judges"


def test_too_low_a_level_or_too_few_seeds_do_not_judge() -> None:
    high = Tolerance(level="E4", sign="+", interval="images")
    assert judge(claim(high), [record("a", AP=quantity(1, 2))]).status == "not run"
    seeds = Tolerance(level="E1", sign="+", interval="seeds")
    assert judge(claim(seeds), [record("a", seed=None, AP=quantity(1, 2, 2))]).status == "not run"
    assert judge(claim(seeds), [record("a", seed=None, AP=quantity(1, 2, 3))]).status == "reproduced"


def test_statuses_are_written_in_the_form_of_the_register(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "claims.json"
    path.write_text((root / "data" / "claims.json").read_text())
    gains = {"ism-gain": {"AP": quantity(-0.5, -0.1), "AP75": quantity(-0.5, 0.2)}}
    made = Record("paired-quick", "", "E1", profile="quick", seed=0, differences={"table1": gains})
    write_statuses(path, [made])
    assert write_statuses(path, [made]) == 0, "nothing left to change"
    claims = {entry.id: entry for entry in read_claims(path)}
    assert claims["table1.ism-gain"].status == "contradicted"
    assert claims["table1.ism-gain"].records == ("paired-quick:differences.table1.ism-gain",)
    register = json.loads(path.read_text())
    assert path.read_text() == json.dumps(register, indent=2, ensure_ascii=False) + "\n"
    before = {entry.id: entry for entry in read_claims(root / "data" / "claims.json")}
    assert all(claims[id].status == entry.status for id, entry in before.items() if entry.tolerance.sign is None)
    write_statuses(path, [])
    assert all(entry.status in ("not run", "checked", "confirmed") for entry in read_claims(path))


def test_the_report_says_something_of_every_claim_and_ends_with_the_counts(root: Path) -> None:
    claims = read_claims(root / "data" / "claims.json")
    photos = [record("paired-quick-photos", level="E2", AP=quantity(0.1, 0.2))]
    several = [claim(), *claims]
    found = report.entries([record("paired-quick", AP=quantity(0.1, 0.2)), *photos], several)
    assert {entry["id"] for entry in found} == {entry.id for entry in several}
    assert [entry["level"] for entry in found if entry["id"] == "table1.gain"] == ["E1", "E2"]
    assert found[-1]["kind"] == "quoted"
    text = list(report.lines(photos, several))
    text = text[text.index("Evidence E2: real photographs") :]
    assert text[3] == "    AP: paper 0.8, ours +0.15 [0.10, 0.20]  holds, paired-quick-photos"
    assert text[-1].startswith("reproduced 1, partly 0") and text[-1].endswith(f"{len(several)} claims")
    assert all(name in text[-1] for name in STATUSES)


def test_all_claims_are_judged(root: Path) -> None:
    claims = read_claims(root / "data" / "claims.json")
    assert [judged.claim.id for judged in verdict.judge_all([], claims)] == [entry.id for entry in claims]
