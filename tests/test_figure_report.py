"""The figures of the last chapters draw what they should."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import pytest

from cpm_lib.claims import read_claims
from cpm_lib.figure_report import VERDICTS, iou_by_size, verdicts


def test_every_claim_that_a_run_can_decide_is_in_the_bars(root: Path) -> None:
    before = dict(matplotlib.rcParams)
    claims = read_claims(root / "data/claims.json")
    axes = verdicts(claims).axes[0]
    widths = sum(bar.get_width() for container in axes.containers for bar in container)
    assert widths == sum(claim.status in VERDICTS and claim.kind != "quoted" for claim in claims)
    places = [label.get_text() for label in axes.get_yticklabels()]
    assert places[0] == "Abstract" and "Table 1" in places and len(places) == len(set(places))
    assert not [name for name in places if name.startswith("Tables")]
    assert dict(matplotlib.rcParams) == before


def test_without_claims() -> None:
    assert not [bar for container in verdicts([]).axes[0].containers for bar in container]


def test_conventions_agree_unless_they_are_mixed() -> None:
    axes = iou_by_size([10.0, 100.0]).axes[0]
    curves = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    mixed, kept, narrow, _ = curves.values()
    assert kept == pytest.approx([1 / 3, 1 / 3])
    assert mixed[0] == pytest.approx(66 / 176) and narrow[0] == pytest.approx(36 / 126)
    assert abs(mixed[1] - kept[1]) < 0.01 and abs(narrow[1] - kept[1]) < 0.01
