"""The figures of the last chapters draw what they should."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib
import pytest

from cpm_lib.ablation.verdict import Judged, outcome
from cpm_lib.claims import Claim, Tolerance, read_claims
from cpm_lib.figure_report import VERDICTS, intervals, iou_by_size, places, verdicts


def test_every_claim_that_a_run_can_decide_is_in_the_bars(root: Path) -> None:
    before = dict(matplotlib.rcParams)
    claims = read_claims(root / "data/claims.json")
    axes = verdicts(claims).axes[0]
    widths = sum(bar.get_width() for container in axes.containers for bar in container)
    decided = [claim for claim in claims if claim.status in VERDICTS and claim.kind != "quoted"]
    assert widths == sum(len(places(claim.source)) for claim in decided)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert names[0] == "Abstract" and "Table 1" in names and len(names) == len(set(names))
    assert all(re.fullmatch(r"Abstract|(Table|Fig\.|Sec\.) \d(\.\d)*", name) for name in names)
    # Its only claim that this repository can decide stands in the text first.
    for verdict, bars in zip(VERDICTS, axes.containers, strict=True):
        wanted = sum("Table 8" in claim.source and claim.status == verdict for claim in decided)
        assert bars[names.index("Table 8")].get_width() == wanted
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("Abstract, Sec. 4.1, Table 2", ["Abstract", "Sec. 4.1", "Table 2"]),
        ("Sec. 4.1.1, Tables 1, 4 and 6", ["Sec. 4.1.1", "Table 1", "Table 4", "Table 6"]),
        ("Tables 4 and 5, Fig. 7", ["Table 4", "Table 5", "Fig. 7"]),
    ],
)
def test_places_of_a_source(source: str, expected: list[str]) -> None:
    assert places(source) == expected


def test_without_claims() -> None:
    assert not [bar for container in verdicts([]).axes[0].containers for bar in container]


@pytest.mark.parametrize(
    ("tolerance", "shaded"),
    [
        (Tolerance(sign="+", min=0.2, max=0.7), (0.2, 0.7)),
        (Tolerance(sign="-", min=0.2, max=0.7), (-0.7, -0.2)),
        (Tolerance(sign="0", within=0.1), (-0.1, 0.1)),
    ],
)
def test_parts_of_a_claim_and_the_range_that_is_asked(tolerance: Tolerance, shaded: tuple[float, float]) -> None:
    paper = {"AP": 0.4, "AP75": None}
    claim = Claim("table1.x", "Table 1", "difference", "", "x", paper, tolerance, (), "not run", "")
    known = {"difference": 0.4, "low": 0.3, "high": 0.5}
    quantities = {"AP75": dict.fromkeys(known), "AP": known}
    parts = tuple((f"run-{part}", part, one, outcome(tolerance, one)) for part, one in quantities.items())
    axes = intervals(Judged(claim, "partly", "E1", parts)).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["AP of run-AP", "AP75 of run-AP75"]
    assert [text.get_text() for text in axes.texts] == [outcome(tolerance, known), "open"]
    assert list(axes.lines[0].get_xdata()) == [0.3, 0.5] and list(axes.lines[2].get_xdata()) == [0.4]
    area = axes.patches[0].get_window_extent().transformed(axes.transData.inverted())
    assert (area.x0, area.x1) == pytest.approx(shaded)


def test_conventions_agree_unless_they_are_mixed() -> None:
    axes = iou_by_size([10.0, 100.0]).axes[0]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    mixed, kept, narrow, _ = curves.values()
    assert kept == pytest.approx([1 / 3, 1 / 3])
    assert mixed[0] == pytest.approx(66 / 176) and narrow[0] == pytest.approx(36 / 126)
    assert abs(mixed[1] - kept[1]) < 0.01 and abs(narrow[1] - kept[1]) < 0.01
