"""CPM R-CNN (Zhu et al., WACV 2021): the whole detector, its baselines, training and evaluation.

    model = cpm_lib.build_model("cpm", num_classes=81)      # fresh weights, in torchvision's data contract
    model = cpm_lib.load("runs/mine")                       # a trained one, in evaluation mode
"""

from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.training.checkpoint import load

__all__ = ["Config", "UserError", "__version__", "build_model", "load"]

__version__ = "0.1.0"
