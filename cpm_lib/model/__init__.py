"""The detector and its baselines; nothing here knows about data sets, training loops or metrics."""

from __future__ import annotations

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.model.cascade_rcnn import CascadeRCNN
from cpm_lib.model.compiling import compile_backbone
from cpm_lib.model.cpm_rcnn import CPMRCNN
from cpm_lib.model.detector import Detector
from cpm_lib.model.faster_rcnn import FasterRCNN
from cpm_lib.model.grid_rcnn import GridRCNN

__all__ = ["CPMRCNN", "CascadeRCNN", "Detector", "FasterRCNN", "GridRCNN", "build_model", "compile_backbone"]

_DETECTORS: dict[str, type[Detector]] = {
    "cpm": CPMRCNN,
    "grid": GridRCNN,
    "faster": FasterRCNN,
    "cascade": CascadeRCNN,
}


def build_model(preset: str | Config, num_classes: int) -> Detector:
    """A detector with fresh weights.

    Args:
        preset: name of a preset (at the paper's size), or a complete configuration.
        num_classes: number of classes with the background, as in torchvision (COCO: 81).

    Raises:
        UserError: unknown preset, or a configuration that no detector fits.
    """
    config = presets.get(preset) if isinstance(preset, str) else preset
    return _DETECTORS[config.detector](config, num_classes)
