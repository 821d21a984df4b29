"""Table 8 and the sentences about speed: pairs of detectors timed in turns, at the same number of RoIs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cpm_lib import bench, ledger, presets
from cpm_lib.ablation.joint import t_interval
from cpm_lib.ablation.paired_record import enter
from cpm_lib.ablation.setting import Setting, place
from cpm_lib.claims import read_claims

COMPARED = (("cpm-r101", "grid-original-r101"), ("cpm", "grid"), ("cpm", "grid-original"))
"""Detectors timed against each other."""
REPEATS = 5
NOTES = (
    "Untrained weights; settings force the same number of RoIs into every grid stage. Both detectors run in turns, so "
    "that a slow minute meets both; intervals by Student's t over these pairs. The absolute "
    "seconds hold for this machine."
)


def record(setting: Setting) -> ledger.Record:
    """The record of all comparisons, at the paper's size whatever the profile, but for smoke; made if it is missing.

    Raises:
        Interrupted: Ctrl-C; the comparisons start again.
    """
    profile, id = ("smoke" if setting.profile == "smoke" else "paper"), setting.record_id("speed")
    if (ledger.results_folder() / f"{id}.json").is_file():
        known = ledger.read(id)
        if known.results_version == ledger.RESULTS_VERSION:
            return known
    setting.check(id)
    began, cpu = time.perf_counter(), time.process_time()
    found = {
        f"{one} - {other}": bench.versus(
            "inference", presets.get(one, profile), presets.get(other, profile), rois=_rois(one, profile),
            repeats=REPEATS, memory=False, device=place(),
        )
        for one, other in COMPARED
    }  # fmt: skip
    differences: dict[str, Any] = {}
    for claim in read_claims():
        parts = quantities(claim.id, found)
        if parts:
            enter(differences, claim, parts)
    made = ledger.make(
        id, "Table 8: CPM R-CNN against Grid R-CNN, seconds per image", "E0", profile=profile,
        device=found["cpm - grid"]["processor"], metrics={"comparisons": found, "rows": _rows(found)},
        differences=differences, notes=NOTES, wall_s=time.perf_counter() - began, cpu_s=time.process_time() - cpu,
    )  # fmt: skip
    ledger.write(made)
    return made


def quantities(claim: str, found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Part -> quantity with its t interval over the repeats, for a claim about speed; else empty."""
    if claim == "table8.cpm-faster-than-grid":
        ratios = _ratios(found["cpm-r101 - grid-original-r101"], "cpm-r101", "grid-original-r101")
        return {"saved-percent": t_interval([100 * (1 - ratio) for ratio in ratios])}
    if claim == "sec4-2-1.slower-than-plus":
        ratios = _ratios(found["cpm - grid"], "cpm", "grid")
        return {"extra-percent": t_interval([100 * (ratio - 1) for ratio in ratios])}
    if claim == "sec2-1.simpler-branch":
        ratios = _ratios(found["cpm - grid-original"], "cpm: grid stage 1", "grid-original: grid stage 1")
        return {"saved-percent": t_interval([100 * (1 - ratio) for ratio in ratios])}
    return {}


def _ratios(content: Mapping[str, Any], one: str, other: str) -> list[float]:
    """Time of one row over that of another, pair by pair."""
    walls = {row["name"]: row["walls_s"] for row in content["rows"]}
    return [first / second for first, second in zip(walls[one], walls[other], strict=True)]


def _rois(preset: str, profile: str) -> int:
    """As many as the RPN of the size gives, at most the paper's 96."""
    config = presets.get(preset, profile)
    return min(config.conventions.rois_at_test or 96, config.proposals.post_nms_test)


def _rows(found: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Seconds per image of each detector, from the first comparison it is in."""
    rows: dict[str, dict[str, float]] = {}
    for content in found.values():
        for row in content["rows"]:
            if row["name"] in presets.PRESETS:
                seconds = row["median_s"] / content["batch"]
                rows.setdefault(row["name"], {"seconds": seconds, "gflop": row["flops"] / 1e9})
    return rows
