"""Training: the loop, the optimiser and its schedule, checkpoints, several processes."""

from cpm_lib.training.checkpoint import load, read_card
from cpm_lib.training.interruption import Interrupted
from cpm_lib.training.trainer import train

__all__ = ["Interrupted", "load", "read_card", "train"]
