"""Every row that the one inference of the paired run holds, and the claims that its rows decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from cpm_lib.ablation.paired_heads import CHAINS, ISM, SCORED
from cpm_lib.claims import Claim
from cpm_lib.evaluation import summary
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.model.fused_score import fuse

GAMMAS = tuple(step / 10 for step in range(11))
LAST = "falling3"

Ap = Callable[[str, str], Tensor]
"""(row, metric) -> AP [1 + draws], as `Resampling.ap`."""
Quantities = dict[str, Tensor]
"""Part of a claim -> its quantity [1 + draws]."""


def rows(detections: Sequence[Detection], gamma: float) -> dict[str, list[Detection]]:
    """Row -> detections with their final "boxes" and "scores".

    ``<boxes>-cls`` for the boxes of every stage, of the offset heads and of the proposals; for the scored stages also
    ``-ism`` (l2, target the output box), ``-rsm``, ``-fused`` and the control ``-n0``, which takes the RSM's place;
    ``falling1-ism-l1`` and so on for the other losses and targets; ``falling3-gamma00`` to ``-gamma10``.

    Args:
        detections: as `paired.detections` returns them.
        gamma: of Eq. 4.
    """
    names = list(detections[0]["at"]) if detections else []
    found = {f"{box}-cls": row(detections, box) for box in names}
    found["proposal-cls"] = [plain(d, d["proposals"], d["scores"]) for d in detections]
    for box in SCORED:
        ism, rsm = f"ism-{box}-l2-output", f"rsm-{box}"
        found[f"{box}-ism"] = row(detections, box, ism)
        found[f"{box}-rsm"] = row(detections, box, None, rsm, gamma)
        found[f"{box}-n0"] = row(detections, box, None, f"n0-{box}", gamma)
        found[f"{box}-fused"] = row(detections, box, ism, rsm, gamma)
    for name, (box, kind, target) in ISM.items():
        if (kind, target) != ("l2", "output"):
            found[_ism_row(box, kind, target)] = row(detections, box, f"ism-{name}")
    for value in GAMMAS:
        found[gamma_row(value)] = row(detections, LAST, f"ism-{LAST}-l2-output", f"rsm-{LAST}", value)
    return found


def row(
    detections: Sequence[Detection], box: str, ism: str | None = None, rsm: str | None = None, gamma: float = 1.0
) -> list[Detection]:
    """One row: boxes by name, and the classification score fused with the named scores (Eq. 4)."""
    return [
        plain(
            d,
            d["at"][box],
            fuse(d["scores"], d["part"][ism] if ism else None, d["part"][rsm] if rsm else None, gamma),
        )
        for d in detections
    ]


def plain(detection: Detection, boxes: Tensor, scores: Tensor) -> Detection:
    return {"image_id": detection["image_id"], "labels": detection["labels"], "boxes": boxes, "scores": scores}


def view(detections: Sequence[Detection], stage: int, gamma: float) -> list[Detection]:
    """The chain ``falling`` cut after `stage` (1-based), in the library's contract: as if its detector had run."""
    box, found = f"falling{stage}", []
    for d in detections:
        iou, rsm = d["part"][f"ism-{box}-l2-output"].clamp(0, 1), d["part"][f"rsm-{box}"]
        passed = torch.stack([d["at"][f"falling{number}"] for number in range(1, stage + 1)], dim=1)
        scores = {"cls_scores": d["scores"], "iou_scores": iou, "rsm_scores": rsm}
        whole = plain(d, d["at"][box], fuse(d["scores"], iou, rsm, gamma))
        found.append({**whole, **scores, "stage_boxes": passed, "proposals": d["proposals"]})
    return found


def gamma_row(gamma: float) -> str:
    return f"{LAST}-gamma{round(10 * gamma):02d}"


def _ism_row(box: str, kind: str, target: str) -> str:
    parts = [box, "ism", *([kind] if kind != "l2" else []), *([target] if target != "output" else [])]
    return "-".join(parts).replace("_", "-")


PAIRS: Mapping[str, tuple[str, str]] = {
    "table1.ism-gain": ("falling1-ism", "falling1-cls"),
    "table1.rsm-gain": ("falling1-rsm", "falling1-cls"),
    "table1.ism-rsm-gain": ("falling1-fused", "falling1-cls"),
    "table1.ism-on-cmm": ("falling2-ism", "falling2-cls"),
    "table1.rsm-on-cmm": ("falling2-rsm", "falling2-cls"),
    "table1.rsm-on-cmm-ism": ("falling2-fused", "falling2-ism"),
    "table1.ism-on-cmm-rsm": ("falling2-fused", "falling2-rsm"),
    "table4.stage2-over-stage1": ("falling2-cls", "falling1-cls"),
    "table4.stage3-over-stage2": ("falling3-cls", "falling2-cls"),
    "table4.three-stages-over-baseline": ("falling3-cls", "falling1-cls"),
    "table4.lower-iou-falls": ("falling3-cls", "falling1-cls"),
    "table5.falling-over-constant": ("falling3-cls", "constant3-cls"),
    "table5.falling-over-constant-stage2": ("falling2-cls", "constant2-cls"),
    "table5.constant-stage2-over-stage1": ("constant2-cls", "falling1-cls"),
    "table5.constant-stage3-falls": ("constant3-cls", "constant2-cls"),
    "sec1.mapping-needed": ("constant-level2-cls", "unmapped2-cls"),
    "fig7.fused-over-cls-ism": (gamma_row(0.8), gamma_row(1.0)),
    "fig7.fused-over-rsm": (gamma_row(0.8), gamma_row(0.0)),
}
"""Claims that are the difference of two rows; their parts are metrics."""


def _large_gain_most(ap: Ap) -> Quantities:
    gain = {size: ap("falling3-cls", size) - ap("falling1-cls", size) for size in ("APS", "APM", "APL")}
    return {"over-small": gain["APL"] - gain["APS"], "over-medium": gain["APL"] - gain["APM"]}


def _gain_at_strict_iou(ap: Ap) -> Quantities:
    gain = {metric: ap("falling3-cls", metric) - ap("falling1-cls", metric) for metric in ("AP50", "AP90")}
    return {"gain": gain["AP90"] - gain["AP50"]}


def _ratio_over_filtering(ap: Ap) -> Quantities:
    """Main effects in the 2x2 of ratios and thresholds; half of each is the mean over the other factor."""
    found = {}
    for metric in ("AP", "APL"):
        stage3 = {name: ap(f"{name}3-cls", metric) for name in CHAINS if name != "unmapped"}
        ratios = stage3["falling"] - stage3["constant"] + stage3["falling-level"] - stage3["constant-level"]
        thresholds = stage3["falling"] - stage3["falling-level"] + stage3["constant"] - stage3["constant-level"]
        found[metric] = (ratios - thresholds) / 2
    return found


def _losses(ap: Ap, metric: str) -> Quantities:
    names = {"l1": "falling1-ism-l1", "smooth-l1": "falling1-ism-smooth-l1", "l2": "falling1-ism"}
    return {loss: ap(name, metric) - ap("falling1-cls", metric) for loss, name in names.items()}


def _l2_best(ap: Ap) -> Quantities:
    gain = _losses(ap, "AP")
    return {f"over-{loss}": gain["l2"] - gain[loss] for loss in ("l1", "smooth-l1")}


def _gamma_08_best(ap: Ap) -> Quantities:
    """The best gamma is chosen anew in every draw; else 0.8, once chosen, would be beyond all doubt."""
    curve = torch.stack([ap(gamma_row(gamma), "AP") for gamma in GAMMAS])
    return {"AP": ap(gamma_row(0.8), "AP") - curve.amax(dim=0)}


def _gain_from_cmm(ap: Ap) -> Quantities:
    cmm = ap("falling3-cls", "AP90") - ap("falling1-cls", "AP90")
    return {"AP90": cmm - (ap("falling3-fused", "AP90") - ap("falling3-cls", "AP90"))}


SPECIAL: Mapping[str, Callable[[Ap], Quantities]] = {
    "table4.large-gain-most": _large_gain_most,
    "table4.gain-at-strict-iou": _gain_at_strict_iou,
    "sec4-1-1.ratio-over-filtering": _ratio_over_filtering,
    "table6.l2-best": _l2_best,
    "table6.other-losses-gain": lambda ap: _losses(ap, "AP"),
    "table6.ism-lowers-ap50": lambda ap: _losses(ap, "AP50"),
    "fig7.gamma-08-best": _gamma_08_best,
    "fig7.fused-over-cls": lambda ap: {
        "relative-percent": 100 * (ap(gamma_row(0.8), "AP") / ap("falling3-cls", "AP") - 1)
    },
    "fig8.a-gain-from-cmm": _gain_from_cmm,
    "sec3-3-2.resampling-matters": lambda ap: {
        "one-stage": ap("falling1-rsm", "AP") - ap("falling1-n0", "AP"),
        "last-stage": ap("falling3-rsm", "AP") - ap("falling3-n0", "AP"),
    },
}
"""Claims of other forms."""


def quantities(claim: Claim, ap: Ap) -> dict[str, Any]:
    """Part -> difference, low, high, sd, samples, for a claim in `PAIRS` or `SPECIAL`."""
    if claim.id in PAIRS:
        one, other = PAIRS[claim.id]
        found = {metric: ap(one, metric) - ap(other, metric) for metric in claim.values}
    else:
        found = SPECIAL[claim.id](ap)
    return {part: summary(found[part]) for part in claim.values}
