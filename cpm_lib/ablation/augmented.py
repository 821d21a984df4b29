"""Several looks at every image: what soft-NMS, mirror images and nine sizes add at test (Table 7, Sec. 4.2.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cpm_lib import evaluation, ledger, presets
from cpm_lib.ablation import joint
from cpm_lib.ablation.paired_record import enter
from cpm_lib.ablation.setting import Setting, cost, digest, place, spending, trained_on
from cpm_lib.claims import read_claims
from cpm_lib.evaluation import Resampling, summary
from cpm_lib.training import checkpoint

CLAIM_ID = "table7.test-time-strategy"
CLAIM = "Soft-NMS and several image sizes at test raise AP"
NOTES = (
    "One training of cpm, evaluated in four ways: as it is; its detections merged again by soft-NMS; with the mirror "
    "image; with eight further sizes in the paper's proportions and all mirror images. Nothing was trained at several "
    "sizes, as the paper's model was. Intervals: paired bootstrap over the evaluation images."
)

WAYS: Mapping[str, Mapping[str, Any] | None] = {
    "one look": None,
    "soft-NMS": {"sizes": (), "flip": False},
    "mirror": {"sizes": ()},
    "nine sizes, mirror": {},
}
"""Row -> options of `evaluation.predict_augmented`; None: `evaluation.predict`."""


def record(setting: Setting, seed: int) -> ledger.Record:
    """The record of this setting and seed: read if it is there, else made and written.

    Raises:
        UserError: the data cannot be used.
        Interrupted: Ctrl-C; the training is kept.
    """
    config, id = presets.get("cpm", setting.profile), setting.record_id("augmented", seed)
    known = setting.found(id, config)
    if known is not None:
        return known
    setting.check(id)
    joint.run(setting, config, seed)
    trained = joint.run_folder(setting, config, seed)
    final = trained / "final.safetensors"
    run = setting.run("augmented", config, seed, weights=digest(final))
    with spending(run):
        model = checkpoint.load(final, device=place())
        found = {}
        for name, options in WAYS.items():
            if options is None:
                found[name] = evaluation.predict(model, setting.val)
            else:
                found[name] = evaluation.predict_augmented(model, setting.val, **options)
        rows = {}
        for name, detections in found.items():
            values = evaluation.evaluate(detections, setting.val)
            rows[name] = {metric: values[metric] for metric in joint.METRICS}
        drawn = Resampling(setting.val, found)
        claim = next(claim for claim in read_claims() if claim.id == CLAIM_ID)
        differences: dict[str, Any] = {}
        first, *_, last = WAYS
        enter(
            differences, claim,
            {metric: summary(drawn.ap(last, metric) - drawn.ap(first, metric)) for metric in claim.values},
        )  # fmt: skip
    spent = [cost(one) for one in (trained, run)]
    made = ledger.make(
        id, CLAIM, setting.level, config=config, dataset=setting.val, seed=seed, inputs=setting.inputs(), notes=NOTES,
        device=trained_on([trained]), metrics={"rows": rows, "n_images": len(setting.val)}, differences=differences,
        wall_s=sum(one["wall_s"] for one in spent), cpu_s=sum(one["cpu_s"] for one in spent),
    )  # fmt: skip
    ledger.write(made)
    return made
