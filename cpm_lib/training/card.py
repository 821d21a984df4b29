"""What a checkpoint says about itself."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cpm_lib.config import Config
from cpm_lib.errors import UserError

FORMAT = "cpm_lib 1"


@dataclass(frozen=True)
class Card:
    """Configuration, classes and origin of a checkpoint, kept inside it."""

    config: Config
    classes: tuple[str, ...]
    """Foreground names; label k is `classes[k - 1]`."""
    data: str = ""
    fingerprint: str = ""
    seed: int = 0
    iterations: int = 0
    """Iterations done."""
    git: str = ""

    @property
    def num_classes(self) -> int:
        """Including the background, as in torchvision."""
        return len(self.classes) + 1

    @property
    def preset(self) -> str:
        return self.config.preset

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: text only."""
        return {
            "format": FORMAT,
            "config": json.dumps(self.config.to_dict()),
            "classes": json.dumps(list(self.classes)),
            "num_classes": str(self.num_classes),
            "preset": self.preset,
            "data": self.data,
            "fingerprint": self.fingerprint,
            "seed": str(self.seed),
            "iterations": str(self.iterations),
            "git": self.git,
        }

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str] | None, path: Path) -> Card:
        """Inverse of `metadata`; `path` is for messages.

        Raises:
            UserError: not written by this library, or the numbers of classes contradict each other.
        """
        if not metadata or metadata.get("format") != FORMAT:
            found = f"format is '{metadata['format']}'" if metadata and "format" in metadata else "it has no card"
            raise UserError(f"{path}: not a checkpoint of this library ({found}, '{FORMAT}' is needed)")
        try:
            config = Config.from_dict(json.loads(metadata["config"]))
            classes = tuple(str(name) for name in json.loads(metadata["classes"]))
            card = cls(
                config=config,
                classes=classes,
                data=metadata.get("data", ""),
                fingerprint=metadata.get("fingerprint", ""),
                seed=int(metadata.get("seed", 0)),
                iterations=int(metadata.get("iterations", 0)),
                git=metadata.get("git", ""),
            )
            written = int(metadata.get("num_classes", card.num_classes))
        except (KeyError, ValueError, UserError) as error:
            raise UserError(f"{path}: the checkpoint's card is not readable ({error})") from error
        if written != card.num_classes:
            raise UserError(
                f"{path}: the card says {written} classes with background but names {len(classes)} classes; "
                "the file was altered, train or download it again"
            )
        return card
