"""Metrics, intervals and diagnosis of detections."""

from cpm_lib.evaluation.augmentation import Augmented, predict_augmented
from cpm_lib.evaluation.bootstrap import (
    Resampling,
    bootstrap_ap,
    bootstrap_difference,
    bootstrap_sums,
    paired_differences,
    summary,
)
from cpm_lib.evaluation.calibration import calibration, hysteresis, score_correlation, score_quality
from cpm_lib.evaluation.coco import HEADLINE, METRICS, SCORES, evaluate, rescore, rows
from cpm_lib.evaluation.completeness import overall_appearance, score_by_completeness, score_by_truncation
from cpm_lib.evaluation.diagnosis import border_positions, borders_by_stage, coverage, misalignment
from cpm_lib.evaluation.error_bins import error_bins
from cpm_lib.evaluation.ground_truth import GroundTruth
from cpm_lib.evaluation.inference import predict
from cpm_lib.evaluation.matching import match, regions, score_columns
from cpm_lib.evaluation.oracles import oracles
from cpm_lib.evaluation.proposal_quality import object_quality, proposal_quality

__all__ = [
    "HEADLINE",
    "METRICS",
    "SCORES",
    "Augmented",
    "GroundTruth",
    "Resampling",
    "bootstrap_ap",
    "bootstrap_difference",
    "bootstrap_sums",
    "border_positions",
    "borders_by_stage",
    "calibration",
    "coverage",
    "error_bins",
    "evaluate",
    "hysteresis",
    "match",
    "misalignment",
    "object_quality",
    "oracles",
    "overall_appearance",
    "paired_differences",
    "predict",
    "predict_augmented",
    "proposal_quality",
    "regions",
    "rescore",
    "rows",
    "score_by_completeness",
    "score_by_truncation",
    "score_columns",
    "score_correlation",
    "score_quality",
    "summary",
]
