"""The claims register against the paper's arithmetic: its rows, their differences, and its contradictions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from cpm_lib.claims import Claim, read_claims
from tests.test_presets import ROWS

CLAIMS: dict[str, Claim] = {
    claim.id: claim for claim in read_claims(Path(__file__).resolve().parents[1] / "data" / "claims.json")
}

# The claim that carries each printed row, in the order of `ROWS`. A model printed in several tables is one claim.
FALLING = "table4.three-stages-stage1 table4.three-stages-stage2 table4.three-stages-stage3"
CARRIES = f"""
    table1.baseline table1.cmm table1.ism table1.rsm table1.ism-rsm table1.cmm-rsm table1.cmm-ism table1.all
    table2.r50-faster table2.r50-grid table2.r50-cpm table2.r101-faster table2.r101-grid table2.r101-cpm
    table3.none table3.ism table3.rsm table3.both
    table1.baseline table4.two-stages-stage1 table1.cmm {FALLING}
    table5.constant-stage1 table5.constant-stage2 table5.constant-stage3 {FALLING}
    table1.baseline table6.l1 table6.smooth-l1 table1.ism
    table7.yolov2 table7.ssd-512 table7.dssd-513 table7.refinedet512 table7.retinanet800 table7.cas-retinanet800
    table7.hsd-512 table7.faster-plus-plus-plus table7.faster table7.mask table7.ms-rcnn table7.revisiting table7.rpdet
    table7.grid table7.cascade table7.cpm-r50 table7.cpm-r101 table7.cpm-x101 table7.cpm-x101-dcn
    table7.cpm-x101-dcn-ms table7.cpm-x101-dcn-ms-tta
    table8.grid table8.cpm
""".split()

# Differences that rows of the register give: claim -> the two rows, for every part that is a metric.
PAIRS = {
    "table1.cmm-gain": ("table1.cmm", "table1.baseline"),
    "table1.ism-gain": ("table1.ism", "table1.baseline"),
    "table1.rsm-gain": ("table1.rsm", "table1.baseline"),
    "table1.ism-rsm-gain": ("table1.ism-rsm", "table1.baseline"),
    "table1.ism-on-cmm": ("table1.cmm-ism", "table1.cmm"),
    "table1.rsm-on-cmm": ("table1.cmm-rsm", "table1.cmm"),
    "table1.rsm-on-cmm-ism": ("table1.all", "table1.cmm-ism"),
    "table1.ism-on-cmm-rsm": ("table1.all", "table1.cmm-rsm"),
    "table1.cmm-on-ism-rsm": ("table1.all", "table1.ism-rsm"),
    "table1.all-gain": ("table1.all", "table1.baseline"),
    "table2.r50-cpm-over-faster": ("table2.r50-cpm", "table2.r50-faster"),
    "table2.r50-cpm-over-grid": ("table2.r50-cpm", "table2.r50-grid"),
    "table2.r50-grid-over-faster": ("table2.r50-grid", "table2.r50-faster"),
    "table2.r101-cpm-over-faster": ("table2.r101-cpm", "table2.r101-faster"),
    "table2.r101-cpm-over-grid": ("table2.r101-cpm", "table2.r101-grid"),
    "table2.third-stage-gain": ("table2.r50-cpm", "table1.all"),
    "table3.ism-gain": ("table3.ism", "table3.none"),
    "table3.rsm-gain": ("table3.rsm", "table3.none"),
    "table3.both-gain": ("table3.both", "table3.none"),
    "table4.stage2-over-stage1": ("table1.cmm", "table4.two-stages-stage1"),
    "table4.stage3-over-stage2": ("table4.three-stages-stage3", "table4.three-stages-stage2"),
    "table4.three-stages-over-baseline": ("table4.three-stages-stage3", "table1.baseline"),
    "table4.lower-iou-falls": ("table4.three-stages-stage3", "table4.three-stages-stage1"),
    "table4.stage1-like-baseline": ("table4.two-stages-stage1", "table1.baseline"),
    "table5.falling-over-constant": ("table4.three-stages-stage3", "table5.constant-stage3"),
    "table5.falling-over-constant-stage2": ("table4.three-stages-stage2", "table5.constant-stage2"),
    "table5.constant-stage2-over-stage1": ("table5.constant-stage2", "table5.constant-stage1"),
    "table5.constant-stage3-falls": ("table5.constant-stage3", "table5.constant-stage2"),
    "table7.r50-over-grid-r101": ("table7.cpm-r50", "table7.grid"),
    "table7.r101-over-cascade": ("table7.cpm-r101", "table7.cascade"),
    "table7.multi-scale-training": ("table7.cpm-x101-dcn-ms", "table7.cpm-x101-dcn"),
    "table7.test-time-strategy": ("table7.cpm-x101-dcn-ms-tta", "table7.cpm-x101-dcn-ms"),
}


def cell(id: str, metric: str = "AP") -> float:
    value = CLAIMS[id].values[metric]
    assert isinstance(value, float)
    return value


def gain(metric: str, a: str, b: str) -> float:
    return cell(a, metric) - cell(b, metric)


# Parts that are no metric, from the same rows.
PARTS: dict[str, dict[str, float]] = {
    "table4.large-gain-most": {
        name: gain("APL", *PAIRS["table4.three-stages-over-baseline"])
        - gain(metric, *PAIRS["table4.three-stages-over-baseline"])
        for name, metric in (("over-small", "APS"), ("over-medium", "APM"))
    },
    "table4.gain-at-strict-iou": {
        "gain": gain("AP90", *PAIRS["table4.lower-iou-falls"]) - gain("AP50", *PAIRS["table4.lower-iou-falls"])
    },
    "table6.l2-best": {
        "over-l1": gain("AP", "table1.ism", "table6.l1"),
        "over-smooth-l1": gain("AP", "table1.ism", "table6.smooth-l1"),
    },
    "table6.other-losses-gain": {
        "l1": gain("AP", "table6.l1", "table1.baseline"),
        "smooth-l1": gain("AP", "table6.smooth-l1", "table1.baseline"),
    },
    "table6.ism-lowers-ap50": {
        name: gain("AP50", row, "table1.baseline")
        for name, row in (("l1", "table6.l1"), ("smooth-l1", "table6.smooth-l1"), ("l2", "table1.ism"))
    },
    "table7.stronger-backbones": {
        "r101": gain("AP", "table7.cpm-r101", "table7.cpm-r50"),
        "x101": gain("AP", "table7.cpm-x101", "table7.cpm-r101"),
        "x101-dcn": gain("AP", "table7.cpm-x101-dcn", "table7.cpm-x101"),
    },
    "table8.cpm-faster-than-grid": {
        "saved-percent": 100 * (1 - cell("table8.cpm", "seconds") / cell("table8.grid", "seconds"))
    },
    "fig8.a-gain-grows": {
        name: cell(f"fig8.a-{name}", "AP90") - cell(f"fig8.a-{name}", "AP80") for name in ("over-faster", "over-grid")
    },
    "fig8.b-large-most": {"gain": cell("fig8.b-medium-and-large", "APL") - cell("fig8.b-medium-and-large", "APM")},
}
# Numbers that the text or a figure states, and no row gives.
STATED = {"fig7.gamma-08-best", "fig7.fused-over-cls", "fig8.a-over-faster", "fig8.a-over-grid"} | {
    "fig8.b-medium-and-large"
}

# What each contradiction says, on its own numbers.
INTERNAL: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "internal.grid-r101-ap": lambda v: len(set(v.values())) == 3,
    "internal.grid-r101-apl": lambda v: v["sec4-2-2"] != v["table7"],
    "internal.ism-rsm-ap75": lambda v: v["ism-rsm"] > v["all"],
    "internal.table4-ap70": lambda v: (
        v["cmm-ap70"] < v["baseline-ap70"]
        and v["cmm-ap75"] > v["baseline-ap75"]
        and v["two-stages-stage1-ap70"] > v["three-stages-stage1-ap70"]
    ),
    "internal.improves-by-499": lambda v: v["claimed-gain"] == v["best-ap"] != v["best-ap"] - v["grid-r101"],
    "internal.lower-iou": lambda v: min(v.values()) == v["baseline"],
    "internal.r50-against-grid-r101": lambda v: v["testdev-cpm"] > v["testdev-grid"] and v["val-cpm"] < v["val-grid"],
    "internal.same-stage-spread": lambda v: (
        round(v["two-stages-ap"] - v["three-stages-ap"], 1)
        == round(v["constant-ap"] - v["three-stages-ap"], 1)
        == v["third-stage-gain"]
        < round(v["three-stages-ap50"] - v["two-stages-ap50"], 1)
    ),
    "internal.leading-with-r50": lambda v: v["rows-with-r50"] == 1,
    "internal.table7-citations": lambda v: (
        v["rpdet-printed"] == v["cascade-in-references"] and v["cascade-printed"] == v["reppoints-in-references"]
    ),
    "internal.table7-r50-sizes": lambda v: (
        v["table7-ap"] > v["table1-ap"]
        and all(v[f"table7-{size}"] <= v[f"table1-{size}"] for size in ("aps", "apm", "apl"))
    ),
    "internal.grid-similar-to-faster": lambda v: (
        v["r50-grid"] - v["r50-faster"] > 2 and v["r101-grid"] - v["r101-faster"] > 1
    ),
    "internal.faster-r101-ap": lambda v: v["table2"] != v["table7"],
}
# Values of contradictions that repeat a cell of the register: value -> (row, metric).
REPEATED = {
    "internal.grid-r101-ap": {"table2": "table2.r101-grid AP", "table7": "table7.grid AP", "table8": "table8.grid AP"},
    "internal.grid-r101-apl": {"table7": "table7.grid APL"},
    "internal.ism-rsm-ap75": {"ism-rsm": "table1.ism-rsm AP75", "all": "table1.all AP75"},
    "internal.table4-ap70": {
        "baseline-ap70": "table1.baseline AP70", "cmm-ap70": "table1.cmm AP70",
        "baseline-ap75": "table1.baseline AP75", "cmm-ap75": "table1.cmm AP75",
        "two-stages-stage1-ap70": "table4.two-stages-stage1 AP70",
        "three-stages-stage1-ap70": "table4.three-stages-stage1 AP70",
    },
    "internal.improves-by-499": {"best-ap": "table7.cpm-x101-dcn-ms-tta AP", "grid-r101": "table7.grid AP"},
    "internal.lower-iou": {
        "baseline": "table1.baseline AP50", "two-stages": "table1.cmm AP50",
        "three-stages": "table4.three-stages-stage3 AP50", "all": "table1.all AP50",
    },
    "internal.r50-against-grid-r101": {
        "testdev-cpm": "table7.cpm-r50 AP", "testdev-grid": "table7.grid AP",
        "val-cpm": "table2.r50-cpm AP", "val-grid": "table2.r101-grid AP",
    },
    "internal.same-stage-spread": {
        "two-stages-ap": "table4.two-stages-stage1 AP", "three-stages-ap": "table4.three-stages-stage1 AP",
        "constant-ap": "table5.constant-stage1 AP", "two-stages-ap50": "table4.two-stages-stage1 AP50",
        "three-stages-ap50": "table4.three-stages-stage1 AP50", "third-stage-gain": "table4.stage3-over-stage2 AP",
    },
    "internal.table7-r50-sizes": {
        f"{table}-{metric.lower()}": f"{row} {metric}"
        for table, row in (("table1", "table1.all"), ("table7", "table7.cpm-r50"))
        for metric in ("AP", "APS", "APM", "APL")
    },
    "internal.grid-similar-to-faster": {
        f"{backbone}-{method}": f"table2.{backbone}-{method} AP"
        for backbone in ("r50", "r101")
        for method in ("faster", "grid")
    },
    "internal.faster-r101-ap": {"table2": "table2.r101-faster AP", "table7": "table7.faster AP"},
}  # fmt: skip


def of_kind(*kinds: str) -> list[Claim]:
    return [claim for claim in CLAIMS.values() if claim.kind in kinds]


def test_every_printed_row_is_carried_by_a_claim() -> None:
    assert len(CARRIES) == len(ROWS)
    for (table, name, printed, _), id in zip(ROWS, CARRIES, strict=True):
        claim = CLAIMS[id]
        assert claim.values["AP"] == printed, f"Table {table}, {name}"
        tables = re.findall(r"Tables? (\d(?:, \d)*(?: and \d)?)", claim.source)
        assert str(table) in re.findall(r"\d", " ".join(tables)), f"Table {table}, {name}"
    rows = {claim.id for claim in of_kind("absolute", "quoted")} | {"table8.grid", "table8.cpm"}
    assert rows == set(CARRIES), "an absolute number that no row prints"


@pytest.mark.parametrize("id", [claim.id for claim in of_kind("difference", "speed")])
def test_printed_differences_are_those_of_the_rows(id: str) -> None:
    values = {part: value for part, value in CLAIMS[id].values.items() if value is not None}
    if id in PAIRS:
        expected = {metric: gain(metric, *PAIRS[id]) for metric in values}
    elif id in PARTS:
        expected = PARTS[id]
    else:
        assert id in STATED or not values or id in ("table8.grid", "table8.cpm")
        return
    assert values == {part: pytest.approx(value, abs=0.051) for part, value in expected.items()}
    assert {part: round(value, 1) for part, value in expected.items()} == values


def test_printed_differences_have_the_sign_that_is_tested() -> None:
    for claim in of_kind("difference", "mechanism", "speed"):
        for part, value in claim.values.items():
            if claim.tolerance.sign is None or value is None:
                continue
            assert isinstance(value, float)
            sign = "0" if value == 0 else "+" if value > 0 else "-"
            assert sign == claim.tolerance.sign, f"{claim.id}, {part}"


@pytest.mark.parametrize("id", [claim.id for claim in of_kind("internal")])
def test_the_paper_against_itself(id: str) -> None:
    values = CLAIMS[id].values
    assert INTERNAL[id](values)
    for name, place in REPEATED.get(id, {}).items():
        row, metric = place.split()
        assert values[name] == CLAIMS[row].values[metric], name
    for left, sign, right, result in re.findall(r"(\d+\.\d) ([-+]) (\d+\.\d) = ([-+]?\d+\.\d)", CLAIMS[id].note):
        computed = float(left) - float(right) if sign == "-" else float(left) + float(right)
        assert round(computed, 1) == float(result), CLAIMS[id].note
