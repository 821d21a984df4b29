"""Findings in words: every claim has a sentence, ranges and outcomes are said, and what was not run is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cpm_lib.ablation.findings import by_verdict, level_table, read_words, switch_effects
from cpm_lib.claims import STATUSES, read_claims
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record, read_all


def gain(low: float, high: float, samples: int = 1000) -> dict[str, Any]:
    return {"difference": (low + high) / 2, "low": low, "high": high, "sd": 0.1, "samples": samples}


def paired(seed: int, ap: dict[str, Any], ap75: dict[str, Any]) -> Record:
    differences = {"table1": {"rsm-gain": {"AP": ap, "AP75": ap75}}}
    return Record(f"paired-quick-s{seed}", "", "E1", profile="quick", seed=seed, differences=differences)


def test_every_claim_that_a_run_can_decide_has_plain_words(root: Path) -> None:
    words = read_words(root / "data/plain_words.json")
    assert list(words) == [claim.id for claim in read_claims() if claim.tolerance.sign is not None]
    assert len(set(words.values())) == len(words)
    assert all(text.endswith(".") and len(text) < 120 for text in words.values())


def test_words_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="restore it"):
        read_words(tmp_path / "none.json")


def test_several_runs_show_a_range_and_one_its_interval() -> None:
    one = [paired(0, gain(0.2, 0.6), gain(0.01, 0.05))]
    assert by_verdict("reproduced", one).rows == [
        [
            "Table 1",
            "The resampled score (RSM) alone raises AP over the classification score.",
            "AP: 0.7\nAP75: 0.7",
            "AP: +0.40 [+0.20, +0.60], as claimed\nAP75: +0.030 [+0.010, +0.050], as claimed",
        ]
    ]
    two = [*one, paired(1, gain(-0.1, 0.5), gain(-0.9, -0.3))]
    (row,) = by_verdict("partly", two).rows
    first, second = row[3].splitlines()
    assert first == "AP: +0.20 to +0.40 in 2 runs, 1 x as claimed, 1 x not resolved"
    assert second == "AP75: -0.60 to +0.030 in 2 runs, 1 x as claimed, 1 x the other way"
    assert by_verdict("partly", two).caption == "Evidence E1: shapes"


def test_a_verdict_that_nothing_has() -> None:
    assert by_verdict("contradicted", []).rows == [["none", "", "", ""]]
    waiting = {claim.id for claim in read_claims() if claim.kind != "speed"} & set(read_words())
    assert len(by_verdict("not run", []).rows) == len(waiting)


def test_the_verdicts_part_all_claims() -> None:
    records = read_all()
    tables = [by_verdict(status, records).rows for status in STATUSES[:5]]
    timed = {claim.id for claim in read_claims() if claim.kind == "speed"}
    assert sum(len(rows) for rows in tables if rows != [["none", "", "", ""]]) == len(set(read_words()) - timed)


def test_levels() -> None:
    rows = {row[0][:2]: row[1:] for row in level_table([paired(0, gain(0.2, 0.6), gain(0.1, 0.5))]).rows}
    assert rows["E1"][:2] == ["1", "1"]
    assert rows["E0"][1] == str(sum(claim.status == "checked" for claim in read_claims()))
    assert int(rows["E4"][2]) > 0


def test_effects_of_switches() -> None:
    parts = {"AP": gain(-0.5, 0.1, 3), "AP75": {**gain(0, 0), "low": None, "high": None}}
    parts["AP90"] = {"difference": None, "low": None, "high": None, "sd": None, "samples": 0}
    differences = {"switches": {"clip_boxes": parts}}
    made = Record("switch-clip-boxes-quick", "", "E1", metrics={"seeds": [0, 1, 2]}, differences=differences)
    table = switch_effects([made.id, "switch-gt-copies-quick"], [made])
    assert table.rows[0] == ["clip_boxes", "3", "-0.20 [-0.50, +0.10]", "+0.000", "undefined"]
    assert table.rows[1] == ["gt_copies", "not run", "–", "–", "–"]
    assert table.caption.startswith("Evidence E1: shapes. ")
