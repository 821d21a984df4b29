"""CPM R-CNN (Zhu et al., WACV 2021): the whole detector, its baselines, training and evaluation.

model = cpm_lib.build_model("cpm", num_classes=81)      # fresh weights, in torchvision's data contract
model = cpm_lib.load("runs/mine")                       # a trained one, in evaluation mode
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpm_lib.config import Config
from cpm_lib.errors import UserError

if TYPE_CHECKING:
    from cpm_lib.model import build_model
    from cpm_lib.training.checkpoint import load

__all__ = ["Config", "UserError", "__version__", "build_model", "load"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """`build_model` and `load` arrive with their first use: `cpm --help` need not wait for torch."""
    if name == "build_model":
        from cpm_lib.model import build_model

        return build_model
    if name == "load":
        from cpm_lib.training.checkpoint import load

        return load
    raise AttributeError(f"module 'cpm_lib' has no attribute '{name}'")
