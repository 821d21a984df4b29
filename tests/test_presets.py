"""Presets: one for every row the paper prints, each of which builds and says what it costs."""

from __future__ import annotations

import json
from collections import Counter

import pytest
import torch

from cpm_lib import presets
from cpm_lib.cli import main
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.presets import PRESETS, PROFILES

QUOTED = "quoted from the cited paper, not run by the authors of CPM R-CNN"
ILLEGIBLE = None
# Every row of Tables 1 to 8 as printed: table, row, AP, and the presets that reproduce it or why there is none.
ROWS: list[tuple[int, str, float | None, str]] = [
    (1, "baseline", 39.9, "table1-baseline-1stage table1-baseline-2const grid"),
    (1, "CMM", 40.7, "table1-cmm"),
    (1, "ISM", 40.5, "table1-ism-1stage table1-ism-2const"),
    (1, "RSM", 40.6, "table1-rsm-1stage table1-rsm-2const"),
    (1, "ISM RSM", ILLEGIBLE, "table1-ism-rsm-1stage table1-ism-rsm-2const"),
    (1, "CMM RSM", 40.9, "table1-cmm-rsm"),
    (1, "CMM ISM", 41.1, "table1-cmm-ism"),
    (1, "CMM ISM RSM", 41.3, "table1-all cpm-2stage"),
    (2, "R-50 Faster R-CNN", 37.6, "faster"),
    (2, "R-50 Grid R-CNN", 40.3, "grid-fused"),
    (2, "R-50 CPM R-CNN", 41.5, "cpm"),
    (2, "R-101 Faster R-CNN", 39.9, "faster-r101"),
    (2, "R-101 Grid R-CNN", 41.7, "grid-fused-r101"),
    (2, "R-101 CPM R-CNN", 43.2, "cpm-r101"),
    (3, "none", 39.8, "cascade"),
    (3, "+ISM", 39.9, "cascade-ism"),
    (3, "+RSM", 40.0, "cascade-rsm"),
    (3, "+ISM&RSM", 40.2, "cascade-ism-rsm"),
    (4, "1, baseline", 39.9, "table4-1"),
    (4, "2, stage 1", 39.9, "table4-2"),
    (4, "2, stage 2", 40.7, "table4-2"),
    (4, "3, stage 1", 39.8, "table4-3"),
    (4, "3, stage 2", 40.7, "table4-3"),
    (4, "3, stage 3", 40.8, "table4-3"),
    (5, "(2,2,2), stage 1", 39.9, "table5-2-2-2"),
    (5, "(2,2,2), stage 2", 40.4, "table5-2-2-2"),
    (5, "(2,2,2), stage 3", 40.3, "table5-2-2-2"),
    (5, "(2,1.5,1.25), stage 1", 39.8, "table5-2-1.5-1.25"),
    (5, "(2,1.5,1.25), stage 2", 40.7, "table5-2-1.5-1.25"),
    (5, "(2,1.5,1.25), stage 3", 40.8, "table5-2-1.5-1.25"),
    (6, "baseline", 39.9, "table6-baseline"),
    (6, "l1", 40.0, "table6-l1"),
    (6, "smooth l1", 40.3, "table6-smooth-l1"),
    (6, "l2", 40.5, "table6-l2"),
    (7, "YOLOv2", 21.6, QUOTED),
    (7, "SSD-512", 31.2, QUOTED),
    (7, "DSSD-513", 33.2, QUOTED),
    (7, "RefineDet512", 36.4, QUOTED),
    (7, "RetinaNet800", 39.1, QUOTED),
    (7, "Cas-RetinaNet800", 39.3, QUOTED),
    (7, "HSD-512", 40.2, QUOTED),
    (7, "Faster R-CNN+++", 34.9, QUOTED),
    (7, "Faster R-CNN w FPN", 36.2, QUOTED),
    (7, "Mask R-CNN w FPN", 38.2, QUOTED),
    (7, "MS R-CNN w FPN", 38.3, QUOTED),
    (7, "Revisiting R-CNN w FPN", 40.7, QUOTED),
    (7, "RPDet w FPN", 41.0, QUOTED),
    (7, "Grid R-CNN w FPN", 41.5, QUOTED),
    (7, "Cascade R-CNN w FPN", 42.8, QUOTED),
    (7, "CPM R-CNN, R-50", 41.7, "cpm"),
    (7, "CPM R-CNN, R-101", 43.3, "cpm-r101"),
    (7, "CPM R-CNN, X-101", 43.6, "cpm-x101"),
    (7, "CPM R-CNN, X-101-DCN", 46.4, "cpm-x101-dcn"),
    (7, "CPM R-CNN, X-101-DCN, multi-scale training", 47.4, "cpm-x101-dcn-ms"),
    (7, "CPM R-CNN, X-101-DCN, multi-scale training and testing", 49.9, "cpm-x101-dcn-ms"),
    (8, "Grid R-CNN, R-101", 41.3, "grid-original-r101"),
    (8, "CPM R-CNN, R-101", 43.2, "cpm-r101"),
]
# Rows that print a number without a table: the comment at the head of a configuration file, where it is its own.
HEADERS = {
    "mapping-ratio-1-1": 22.9,
    "mapping-ratio-1.5-1.25": 36.2,
    "mapping-ratio-2-1.25": 36.5,
    "mapping-ratio-2-1.5": None,  # twenty files carry the same numbers
    "mapping-ratio-2-1.5-iou-0.5": 36.3,
    "mapping-ratio-2-1.75": 36.6,
    "mapping-ratio-2-2": 36.2,
    "mapping-ratio-2.5-2": 36.7,
    "no-mapping": 23.3,
}
FOR_COMPARISON = {"grid-original"}


def test_every_row_has_its_presets_or_a_reason() -> None:
    for table, row, printed, text in ROWS:
        if text == QUOTED:
            continue
        stage = int(row.rpartition(" ")[2]) if "stage" in row else None
        for name in text.split():
            results = [result for result in PRESETS[name].results if f"Table {table}" in result.source]
            assert results, f"{name} does not name Table {table}"
            values = [r.value for r in results if r.metric == "AP" and (stage is None or r.stage == stage)]
            assert values == [] if printed is None else printed in values, f"Table {table}, {row}: {name}"
            assert all((result.split == "test-dev") == (table == 7) for result in results)


def test_every_preset_belongs_to_a_row() -> None:
    named = {name for *_, text in ROWS if text != QUOTED for name in text.split()}
    assert named | HEADERS.keys() | FOR_COMPARISON == set(PRESETS)
    assert {name: PRESETS[name].expected for name in HEADERS} == HEADERS
    printed = Counter((table, ap) for table, _, ap, text in ROWS if text != QUOTED and ap is not None)
    known = {
        (int(result.source.rpartition("Table ")[2]), result.value)
        for preset in PRESETS.values()
        for result in preset.results
        if result.metric == "AP" and "Table" in result.source
    }
    assert known == set(printed), "a number that no row prints"


def test_the_number_of_a_row_is_the_expected_one() -> None:
    expected = {name: preset.expected for name, preset in PRESETS.items()}
    assert (expected["cpm"], expected["table4-3"], expected["table5-2-2-2"]) == (41.5, 40.8, 40.3)
    assert expected["table1-ism-rsm-1stage"] is None, "only its AP75 is legible"
    assert expected["cpm-x101-dcn-ms"] == 47.4, "the better number needs test-time augmentation"
    assert "--tta" in PRESETS["cpm-x101-dcn-ms"].paper
    assert [r.value for r in PRESETS["cpm-r101"].results if r.metric == "seconds"] == [0.14]
    assert [r.value for r in PRESETS["grid-original-r101"].results if r.metric == "seconds"] == [0.29]


@pytest.mark.parametrize("name", PRESETS)
def test_builds_at_full_size(name: str) -> None:
    config = presets.get(name)
    assert config.preset == name
    with torch.device("meta"):
        model = build_model(config, 81)
    assert sum(p.numel() for p in model.parameters()) > 1e7


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("conventions", ["corrected", "official"])
def test_overrides_are_valid_at_every_size(profile: str, conventions: str) -> None:
    for name in PRESETS:
        config = presets.get(name, profile, conventions)
        assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config
        assert config.cascade.stages >= 1


def test_what_the_rows_switch_on() -> None:
    """The settings that the paper and the authors' configurations give for a row."""
    cpm = presets.get("cpm")
    assert cpm.cascade.mapping_ratios == (2.0, 1.5, 1.25) and cpm.cascade.iou_thresholds == (0.5, 0.6, 0.7)
    assert (cpm.scoring.ism, cpm.scoring.rsm, cpm.scoring.gamma, cpm.grid.fusion) == (True, True, 0.8, False)
    constant = presets.get("table1-rsm-2const")
    assert constant.cascade.mapping_ratios == (2.0, 2.0) and constant.cascade.iou_thresholds == (0.5, 0.5)
    assert (constant.scoring.ism, constant.scoring.rsm) == (False, True)
    weights = {name: presets.get(name).scoring for name in PRESETS if name.startswith("cascade")}
    assert {n: (s.ism_weight if s.ism else 0, s.rsm_weight if s.rsm else 0) for n, s in weights.items()} == {
        "cascade": (0, 0), "cascade-ism": (1.5, 0), "cascade-rsm": (0, 0.2), "cascade-ism-rsm": (1, 0.2),
    }  # fmt: skip
    assert presets.get("cascade").solver.iterations == 90_000
    best = presets.get("cpm-x101-dcn-ms")
    assert best.input.train_sizes == (600, 640, 672, 704, 736, 768, 800, 864) and best.input.max_size == 1400
    assert best.backbone.deformable and best.grid.rois_per_image == 32


def test_development_presets_share_the_half_schedule() -> None:
    for name in HEADERS:
        config = presets.get(name)
        assert (config.input.train_sizes, config.input.test_size, config.input.max_size) == ((600,), 600, 1000)
        assert (config.solver.iterations, config.solver.steps) == (45_000, (30_000, 40_000))
        assert config.grid.fusion and not config.scoring.ism and not config.scoring.rsm
        assert config.cascade.stages == 2
        equal = name in ("mapping-ratio-1-1", "mapping-ratio-2-2", "mapping-ratio-2-1.5-iou-0.5")
        assert config.cascade.iou_thresholds == ((0.5, 0.5) if equal else (0.5, 0.6))
        ratios = tuple(float(part) for part in name.removesuffix("-iou-0.5").split("-")[2:]) or (1.0, 1.0)
        assert config.cascade.mapping_ratios == ratios


def test_listing_shows_cost_and_expectation_of_every_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, preset in PRESETS.items():
        start = lines.index(f"{name}: {preset.summary}")
        expected, cost, command = lines[start + 1 : start + 4]
        assert expected.startswith("    expected: " + ("no AP" if preset.expected is None else f"AP {preset.expected}"))
        iterations = presets.get(name).solver.iterations // 1000
        assert f"{iterations}k iterations of 16 images" in cost and "8 GPUs x 2 images" in cost
        assert f"--preset {name} " in command
    assert main(["presets", "--json", "-"]) == 0
    content = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert len(content) == len(PRESETS), "names are unique"
    assert content["cpm"]["results"][1] == {
        "source": "Table 7", "value": 41.7, "split": "test-dev", "stage": None, "metric": "AP", "options": "",
    }  # fmt: skip


def test_unknown_names_get_a_hint() -> None:
    for arguments in (("cmp",), ("cpm", "papper"), ("cpm", "paper", "oficial")):
        with pytest.raises(UserError, match=r"did you mean '(cpm|paper|official)'"):
            presets.get(*arguments)
