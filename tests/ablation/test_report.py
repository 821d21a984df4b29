"""The report: every claim with its words, and how the verdicts are spread over the levels of evidence."""

from __future__ import annotations

from typing import Any

from cpm_lib.ablation import report
from cpm_lib.claims import read_claims
from cpm_lib.ledger import Record

QUANTITY = {"difference": 1.0, "low": 0.5, "high": 1.5, "samples": 1000}


def paired(level: str, name: str, quantity: dict[str, Any]) -> Record:
    differences = {"table1": {"rsm-gain": {"AP": quantity, "AP75": quantity}}}
    return Record(name, "", level, profile="quick", seed=0, differences=differences)


def test_verdicts_are_counted_at_every_level() -> None:
    lower = {**QUANTITY, "difference": -1.0, "low": -1.5, "high": -0.5}
    records = [paired("E1", "paired-quick", QUANTITY), paired("E2", "paired-quick-photographs", lower)]
    claims = [claim for claim in read_claims() if claim.id in ("table1.rsm-gain", "table1.ism-gain")]
    lines = list(report.lines(records, claims))
    assert "At E1: reproduced 1" in lines and "At E2: contradicted 1" in lines
    assert lines[-1].startswith("reproduced 1, partly 0") and lines[-1].endswith("2 claims"), "the lowest level decides"
    counts = report.by_level(report.entries(records, claims))
    assert list(counts) == ["E1", "E2"] and sum(counts["E2"].values()) == 1


def test_a_claim_is_quoted_or_put_in_plain_words() -> None:
    found = {entry["id"]: list(report.claim_lines(entry)) for entry in report.entries([])}
    claims = {claim.id: claim for claim in read_claims()}
    assert set(found) == set(claims)
    for id, lines in found.items():
        quote = claims[id].quote
        assert (f'    the paper: "{quote}"' in lines) == bool(quote), id
    assert any(line.startswith("    in plain words: ") for line in found["fig8.a-over-grid"])
    assert not any("in plain words" in line for line in found["table4.three-stages-stage1"]), "a number speaks alone"
