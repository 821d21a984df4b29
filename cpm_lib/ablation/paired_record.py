"""The record of a paired run: every row's AP, and every claim that its rows decide."""

from __future__ import annotations

import dataclasses
from typing import Any

from cpm_lib import ledger
from cpm_lib.ablation import paired, paired_rois, paired_rows
from cpm_lib.ablation.paired_heads import CHAINS, ISM
from cpm_lib.ablation.setting import Setting, cost, plain, spending, trained_on
from cpm_lib.claims import Claim, read_claims
from cpm_lib.evaluation import METRICS, Resampling, evaluate, summary
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.progress import progress

CLAIM = "Heads side by side on one frozen trunk: stages, mapping ratios, thresholds, ISM, RSM and their controls"


def record(setting: Setting, seed: int) -> ledger.Record:
    """The record of this setting and seed: read if it is there, else made and written.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; what was trained is kept.
    """
    config, id = paired.paired_config(setting.profile), setting.record_id("paired", seed)
    known = setting.found(id, config)
    if known is not None:
        return known
    setting.check(id)
    run = paired.run_folder(setting, config, seed)
    found = paired.detections(setting, config, seed)
    with spending(run):
        metrics, differences, interval = measure(found, setting, seed)
    made = ledger.make(
        id, CLAIM, setting.level, config=config, dataset=setting.val, seed=seed,
        inputs=setting.inputs(), device=trained_on([run]), metrics=metrics,
        differences=differences, interval=interval, notes=notes(setting), **cost(run),
    )  # fmt: skip
    ledger.write(made)
    return made


def measure(
    found: list[Detection], setting: Setting, seed: int
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Metrics, differences by claim, and the interval of AP of the last fused row."""
    config = paired.paired_config(setting.profile)
    rows = paired_rows.rows(found, config.scoring.gamma)
    table = {}
    for name, detections in progress(rows.items(), desc="rows", unit="row"):
        values = evaluate(detections, setting.val, curves=name in _WITH_CURVES)
        table[name] = {metric: values[metric] for metric in (*METRICS, *(["curves"] if "curves" in values else []))}
    drawn = Resampling(setting.val, rows)
    differences: dict[str, Any] = {}
    claims = [claim for claim in read_claims() if claim.id in paired_rows.PAIRS or claim.id in paired_rows.SPECIAL]
    for claim in progress(claims, desc="intervals", unit="claim"):
        enter(differences, claim, paired_rows.quantities(claim, drawn.ap))
    model = paired.heads(setting, config, seed)
    counts = paired_rois.training_ious(model, setting, config, seed)
    better, gains = paired_rois.gain_from_better_rois(found, setting.val)
    by_id = {claim.id: claim for claim in read_claims()}
    enter(differences, by_id["sec1.stages-enrich-boxes"], {"entropy": paired_rois.entropy_gain(counts)})
    enter(differences, by_id["sec3-2.points-need-better-rois"], {"iou": better})
    metrics = {
        "rows": table,
        "gamma": [{"gamma": gamma, **table[paired_rows.gamma_row(gamma)]} for gamma in paired_rows.GAMMAS],
        "chains": {name: plain(dataclasses.asdict(cascade)) for name, cascade in CHAINS.items()},
        "ism": {name: {"boxes": box, "loss": loss, "target": target} for name, (box, loss, target) in ISM.items()},
        "training_ious": counts.sum(dim=0).tolist(),
        "better_rois": gains,
        "n_images": len(setting.val),
    }
    last = summary(drawn.ap("falling3-fused"))
    return metrics, differences, {"ap": last.pop("difference"), **last}


def enter(differences: dict[str, Any], claim: Claim, parts: dict[str, Any]) -> None:
    """Put the parts of a claim where its id says: ``differences.<place>.<name>.<part>``."""
    place, _, name = claim.id.partition(".")
    differences.setdefault(place, {})[name] = parts


_WITH_CURVES = {"proposal-cls", "offset-cls", "faster-cls", "falling1-cls", "falling2-cls", "falling3-cls",
                "falling3-fused", "constant3-cls"}  # fmt: skip


def notes(setting: Setting) -> str:
    """What a reader of the numbers has to know."""
    config = paired.paired_config(setting.profile)
    seen = config.solver.iterations * config.solver.images_per_batch
    return (
        f"Frozen trunk (Faster R-CNN); heads only, {config.solver.iterations} iterations of "
        f"{config.solver.images_per_batch} images ({seen} in all): undertrained, so AP is below that of a joint "
        "training. Heads share RoIs, starting weights by form and draws; no gradient passes between them, ISMs read "
        "detached features. Where errors are below 1, as those of the ISM, smooth l1 is l2: both are one. At most "
        f"{config.conventions.rois_at_test} detections per image, score above "
        f"{config.classification.score_threshold}. Intervals: paired bootstrap over the evaluation images. All seeds "
        "share one trunk and its classification scores, so what differs between them says nothing about those."
    )
