"""Options that several commands take: the settings of a detector, and the data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpm_lib.config import Config


def wanted_config(args: argparse.Namespace, preset: str | None = None, settings: Sequence[str] | None = None) -> Config:
    from cpm_lib import presets

    config = presets.get(preset or args.preset, args.profile, conventions=args.conventions)
    return config.override_text(args.set if settings is None else settings)


def open_data(text: str, strict: bool) -> Any:
    """Open a data source; with several processes first in the main one, which may have to make it."""
    from cpm_lib.data import open_source
    from cpm_lib.training import distributed

    opened: list[Any] = []
    distributed.on_main(lambda: opened.append(open_source(text, strict=strict)))
    data = opened[0] if opened else open_source(text, strict=strict)
    if data.dropped and distributed.is_main():
        image_id, reason = data.dropped[0]
        print(f"{text}: {len(data.dropped)} bad boxes dropped, e.g. image {image_id}: {reason}", file=sys.stderr)
    return data
