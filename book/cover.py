"""Makes the picture that moves on the cover: the shipped model's own detections in an explorer.

    cover.py PROFILE FILE

The page itself is not executed; the file becomes a part of it as raw HTML.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cpm_lib import explorers, shipped
from cpm_lib.files import write_atomic


def main() -> None:
    profile, target = sys.argv[1:]
    explorer = explorers.stages(shipped.validation(profile), shipped.detections(profile), count=4)
    write_atomic(Path(target), explorer._repr_html_())


if __name__ == "__main__":
    main()
