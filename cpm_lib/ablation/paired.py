"""Training of the paired run and its one inference, both kept in a run folder."""

from __future__ import annotations

from pathlib import Path

import torch

from cpm_lib import evaluation, presets
from cpm_lib.ablation.paired_heads import PairedHeads
from cpm_lib.ablation.setting import Setting, digest, place, shipped_trunk, spending
from cpm_lib.config import Config
from cpm_lib.evaluation.ground_truth import Detection
from cpm_lib.training import checkpoint
from cpm_lib.training.trainer import train

CUT = {"classification.score_threshold": 0.05, "conventions.rois_at_test": 20}
"""Fewer detections than the presets keep, the same ones for every row: each row costs an evaluation."""


def paired_config(profile: str) -> Config:
    """The preset ``cpm`` at this size, cut by `CUT`; gradients are not clipped, which would tie the heads together."""
    return presets.get("cpm", profile).override({**CUT, "solver.clip_norm": None, "solver.checkpoint_every": 30})


def run_folder(setting: Setting, config: Config, seed: int) -> Path:
    """Where training and inference of this run are kept."""
    return setting.run("paired", config, seed, trunk=digest(trunk(setting)))


def trunk(setting: Setting) -> Path:
    """The frozen trunk: the shipped Faster R-CNN where it was trained on these data, else one trained now.

    Raises:
        UserError: the data cannot be used for training.
        Interrupted: Ctrl-C; the run can be continued.
    """
    shipped = shipped_trunk()
    config = presets.get("faster", setting.profile)
    card = checkpoint.read_card(shipped) if shipped.is_file() else None
    fits = card is not None and card.config.profile == setting.profile
    if card is not None and fits and card.fingerprint == setting.train.fingerprint():
        return shipped
    init = shipped if fits else None
    run = setting.run("trunk", config, 0, init=init and digest(init))
    if not (run / "final.safetensors").is_file():
        with spending(run):
            train(config, setting.train, run, init=init, resume=run.exists())
    return run / "final.safetensors"


def heads(setting: Setting, config: Config, seed: int) -> PairedHeads:
    """The trained heads on their trunk, in evaluation mode at `place`; trained now if they are not yet.

    Raises:
        Interrupted: Ctrl-C; the run can be continued.
    """
    torch.manual_seed(seed)
    model = PairedHeads(config, len(setting.train.classes) + 1)
    model.load_trunk(trunk(setting))
    run = run_folder(setting, config, seed)
    final = run / "final.safetensors"
    if not final.is_file():
        with spending(run):
            train(config, setting.train, run, model=model, seed=seed, resume=run.exists())
    checkpoint.fit(model, checkpoint.read_weights(final), final)
    return model.to(place()).eval()


def detections(setting: Setting, config: Config, seed: int) -> list[Detection]:
    """One inference over the validation data with all boxes and scores by name, made now if it is not yet.

    Returns:
        per image "image_id", "labels", "scores" (of the classification branch), "proposals", and by name the boxes
        [N, 4] in "at" and the scores [N] in "part", see `PairedHeads`.
    """
    run = run_folder(setting, config, seed)
    file = run / "detections.pt"
    model = heads(setting, config, seed)
    if not file.is_file():
        with spending(run):
            checkpoint.save_tensors(file, {"found": evaluation.predict(model, setting.val)})
    return [_named(model, detection) for detection in torch.load(file, weights_only=True)["found"]]


def _named(model: PairedHeads, detection: Detection) -> Detection:
    at = dict(zip(model.boxes, detection["stage_boxes"].unbind(dim=1), strict=True))
    part = dict(zip(model.parts, detection["parts"].unbind(dim=1), strict=True))
    kept = {key: detection[key] for key in ("image_id", "labels", "scores", "proposals")}
    return {**kept, "at": at, "part": part}
