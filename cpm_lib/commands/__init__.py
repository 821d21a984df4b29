"""What the sub-commands of `cpm` do: one thin function each, importing only what it needs.

Importing torch and torchvision takes seconds; a command that needs neither must not wait for them.
"""

from cpm_lib.commands.comparing import ablate, bench_detectors, bench_loading, bench_paths, bench_targets
from cpm_lib.commands.describing import convert, data_check, data_coco, data_shapes, env, info, list_presets
from cpm_lib.commands.running import detect, evaluate, plot, train

__all__ = [
    "ablate",
    "bench_detectors",
    "bench_loading",
    "bench_paths",
    "bench_targets",
    "convert",
    "data_check",
    "data_coco",
    "data_shapes",
    "detect",
    "env",
    "evaluate",
    "info",
    "list_presets",
    "plot",
    "train",
]
