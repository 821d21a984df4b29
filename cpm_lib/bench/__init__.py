"""What `cpm bench` runs: times, operations, memory and waits, always beside something to compare with.

Every function returns the content of ``--json``: device, threads, dtype and `rows`, each with `name`, `median_s`,
`repeats`, `peak_mb`, `flops`, `ratio`, `against` and what else belongs to it.
"""

from __future__ import annotations

from cpm_lib.bench.data_loading import loading
from cpm_lib.bench.detectors import own_settings, sweep, versus
from cpm_lib.bench.fast_paths import paths
from cpm_lib.bench.heatmap_targets import targets
from cpm_lib.bench.measuring import threads
from cpm_lib.bench.records import record

__all__ = ["loading", "own_settings", "paths", "record", "sweep", "targets", "threads", "versus"]
