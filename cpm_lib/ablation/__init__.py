"""What `cpm ablate` runs: the paper's tables and figures again, each claim with its interval and its verdict."""

from __future__ import annotations

from cpm_lib.ablation.experiments import EXPERIMENTS, get, run
from cpm_lib.ablation.listing import SEEDS, listing
from cpm_lib.ablation.setting import PROFILES, RUNS, Setting
from cpm_lib.ablation.verdict import judge, judge_all, write_statuses

__all__ = [
    "EXPERIMENTS",
    "PROFILES",
    "RUNS",
    "SEEDS",
    "Setting",
    "get",
    "judge",
    "judge_all",
    "listing",
    "run",
    "write_statuses",
]
