"""What records cost: sums, runs that made two records, missing seconds, energy."""

from __future__ import annotations

import pytest

from cpm_lib.compute_ledger import CPU_WATTS, GPU_WATTS, cost_table, costs, total_table
from cpm_lib.ledger import LEVELS, Record

RECORDS = [
    Record("a", "", "E1", profile="quick", wall_s=7200.0, cpu_s=3600.0),
    Record("b", "", "E1", profile="quick", wall_s=7200.0, cpu_s=3600.0, notes="x; wall_s and cpu_s are those of it"),
    Record("c", "", "E1", profile="quick", wall_s=1800.5, cpu_s=1800.0, notes="wall_s and cpu_s are those of it."),
    Record("d", "", "E0"),
    Record("e", "", "E0", device="NVIDIA H100 80GB HBM3", wall_s=360.0, cpu_s=720.0),
]


def test_a_run_that_made_two_records_counts_once() -> None:
    found = {cost.id: cost for cost in costs(RECORDS)}
    assert [cost.shared for cost in found.values()] == ["", "a", "", "", ""]
    assert found["c"].covers == "it" and found["a"].covers == "all that made it"
    table = total_table(RECORDS)
    assert table.rows[0] == ["E0: " + LEVELS["E0"], "none", "NVIDIA H100 80GB HBM3", "1", "0", "0.10", "0.20", "73.0"]
    assert table.rows[2] == ["E1: shapes", "quick", "cpu", "3", "0", "2.50", "1.50", "22.5"]
    assert table.rows[3][3:] == ["5", "1", "2.60", "1.70", "95.5"]


def test_energy_by_hand() -> None:
    found = {cost.id: cost.watt_hours for cost in costs(RECORDS)}
    assert found["a"] == pytest.approx(CPU_WATTS)
    assert found["e"] == pytest.approx(GPU_WATTS * 0.1 + CPU_WATTS * 0.2)
    assert found["d"] == 0


def test_missing_seconds_are_said() -> None:
    rows = {row[0]: row for row in cost_table(RECORDS).rows}
    assert rows["d"][3:] == ["not recorded", "not recorded", "–"]
    assert rows["b"][3:] == ["120.0", "60.0", "the run of a"]


def test_trainings_in_several_joint_records_are_said() -> None:
    faster, cpm = {"preset": "a", "detector": "faster"}, {"preset": "b"}
    tables = [
        Record("joint-x", "", "E1", cpu_s=60.0, metrics={"seeds": [0, 1], "configs": {"a": faster, "b": cpm}}),
        Record("joint-y", "", "E1", cpu_s=60.0, metrics={"seeds": [0], "configs": {"c": cpm | {"preset": "c"}}}),
        Record("joint-z", "", "E1", metrics={"seeds": [0], "configs": {"c": cpm}}),
    ]
    caption = total_table(tables).caption
    assert "share, and that are counted again: 1." in caption
    assert "700 W for a GPU over the whole time by the clock" in caption and "interrupted attempts" in caption
    assert "counted again" not in total_table(tables[:1]).caption


def test_no_records() -> None:
    assert total_table([]).rows == [["all", "", "", "0", "0", "0.00", "0.00", "0.0"]]
    assert cost_table([]).rows == []
