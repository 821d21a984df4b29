"""``python -m cpm_lib`` is ``cpm``; torchrun needs it."""

import sys

from cpm_lib.cli import main

if __name__ == "__main__":
    sys.exit(main())
