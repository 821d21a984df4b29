"""Figures that answer when they are touched, with or without a kernel; one function per idea of the paper."""

from cpm_lib.explorers import live
from cpm_lib.explorers.component import Explorer
from cpm_lib.explorers.conventions import conventions
from cpm_lib.explorers.gamma import gamma
from cpm_lib.explorers.iou_threshold import iou_threshold
from cpm_lib.explorers.mapping_ratio import mapping_ratio
from cpm_lib.explorers.nms import nms
from cpm_lib.explorers.roi_cost import roi_cost
from cpm_lib.explorers.schedule import schedule
from cpm_lib.explorers.score_iou import score_iou
from cpm_lib.explorers.stages import stages
from cpm_lib.explorers.truncation import truncation
from cpm_lib.explorers.verdict import verdict
from cpm_lib.explorers.voting import voting

__all__ = [
    "Explorer",
    "conventions",
    "gamma",
    "iou_threshold",
    "live",
    "mapping_ratio",
    "nms",
    "roi_cost",
    "schedule",
    "score_iou",
    "stages",
    "truncation",
    "verdict",
    "voting",
]
