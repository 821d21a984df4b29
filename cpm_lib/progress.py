"""Progress bars that stay silent where nobody watches."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress(iterable: Iterable[Any] | None = None, **options: Any) -> tqdm:
    """A tqdm bar on standard error; off if ``CPM_PROGRESS=0``, without a terminal, or on rank != 0.

    ``CPM_PROGRESS=1`` turns it on even without a terminal.
    """
    wish = os.environ.get("CPM_PROGRESS")
    watched = sys.stderr.isatty() if wish is None else wish != "0"
    disable = not watched or os.environ.get("RANK", "0") != "0"
    return tqdm(iterable, disable=disable, dynamic_ncols=True, **options)
