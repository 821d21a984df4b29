"""Metrics, intervals and diagnosis of detections."""

from cpm_lib.evaluation.augmentation import Augmented, predict_augmented
from cpm_lib.evaluation.bootstrap import bootstrap_ap, bootstrap_difference, paired_differences
from cpm_lib.evaluation.coco import METRICS, SCORES, evaluate, rescore, rows
from cpm_lib.evaluation.diagnosis import (
    border_positions,
    coverage,
    match,
    misalignment,
    score_by_truncation,
    score_correlation,
)
from cpm_lib.evaluation.ground_truth import GroundTruth
from cpm_lib.evaluation.inference import predict

__all__ = [
    "METRICS",
    "SCORES",
    "Augmented",
    "GroundTruth",
    "bootstrap_ap",
    "bootstrap_difference",
    "border_positions",
    "coverage",
    "evaluate",
    "match",
    "misalignment",
    "paired_differences",
    "predict",
    "predict_augmented",
    "rescore",
    "rows",
    "score_by_truncation",
    "score_correlation",
]
