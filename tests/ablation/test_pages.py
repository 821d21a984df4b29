"""Tables of the book: what they say of the records there are, and of those there are not."""

from __future__ import annotations

import pytest

from cpm_lib import ledger
from cpm_lib.ablation import pages
from cpm_lib.claims import read_claims, read_words
from cpm_lib.errors import UserError


def quantity(value: float) -> dict[str, float]:
    return {"difference": value, "low": value - 0.5, "high": value + 0.5}


def record(seed: int, value: float) -> ledger.Record:
    parts = {part: quantity(value) for part in ("AP", "APS", "APM", "APL", "AP90")}
    id = "paired-quick" if seed == 0 else f"paired-quick-s{seed}"
    rows = {"falling1-cls": {"AP": 30.0 + value}, "falling2-cls": {"AP": 31.0 + value}}
    return ledger.Record(
        id=id, claim="", level="E1", profile="quick", seed=seed, metrics={"rows": rows},
        differences={"table4": {"stage2-over-stage1": parts}},
    )  # fmt: skip


def test_seeds_of_a_claim_share_a_line() -> None:
    table = pages.claims_table("table4.stage2-over-stage1", records=[record(0, 1.0), record(1, 2.0)])
    ((statement, paper, ours, verdict, where),) = table.rows
    words, form = statement.split("\n")
    assert words == read_words()["table4.stage2-over-stage1"] and "stage 2" in form
    lines = ours.replace("\N{NO-BREAK SPACE}", " ").split("\n")
    assert lines == [f"{part} +1.50 [0.50, 2.50]" for part in ("AP", "APS", "APM", "APL", "AP90")]
    assert paper.replace("\N{NO-BREAK SPACE}", " ").split("\n")[:2] == ["AP 0.8", "APS 0.2"]
    assert (verdict, where) == ("reproduced", "paired-quick, 2 seeds")


def test_a_claim_without_a_record_says_so() -> None:
    claim = next(claim for claim in read_claims() if claim.id == "table2.r50-cpm-over-faster")
    table = pages.claims_table(claim.id, records=[])
    ((_, _, ours, verdict, where),) = table.rows
    assert (ours, verdict, where) == ("–", "not run", "")


def test_an_experiment_shows_mean_and_spread() -> None:
    table = pages.experiment_table("table4", columns=["AP"], records=[record(0, 1.0), record(1, 3.0)])
    rows = {row[0]: [cell.replace("\N{NO-BREAK SPACE}", " ") for cell in row[1:]] for row in table.rows if row[1]}
    assert rows["stage 1"] == ["2", "32.0 ± 1.4"]
    assert "E1" in table.caption


def test_times_have_a_device_and_no_seeds() -> None:
    rows = {"cpm-r101": {"seconds": 2.0, "gflop": 4.0}}
    timed = ledger.Record(
        id="speed-quick", claim="", level="E0", profile="paper", device="a card", metrics={"rows": rows}
    )
    table = pages.experiment_table("table8", records=[timed])
    assert table.header == ["", "seconds", "GFLOP"]
    assert table.rows[:2] == [["cpm-r101", "2.00", "4.00"], ["  the paper", "0.14", "-"]]
    assert "measured on a card" in table.caption and "seeds" not in table.caption


def test_an_experiment_without_records_is_empty_and_says_so() -> None:
    table = pages.experiment_table("table4", records=[])
    assert not table.rows
    assert "Not run yet" in table.caption


def test_differences_beside_the_claims() -> None:
    table = pages.beside_table("joint-table2-quick")
    assert {row[0] for row in table.rows} == {"cpm - faster-fresh", "grid-fused - faster-fresh"}
    assert all(len(row) == len(table.header) == 5 and "[" in row[1] for row in table.rows)


def test_unknown_experiments_are_named() -> None:
    with pytest.raises(UserError, match="unknown ablation 'table44'"):
        pages.experiment_table("table44", records=[])
