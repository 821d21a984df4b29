"""Figures that answer when they are touched, with or without a kernel; one function per idea of the paper."""

from cpm_lib.explorers.component import Explorer
from cpm_lib.explorers.mapping_ratio import mapping_ratio

__all__ = ["Explorer", "mapping_ratio"]
