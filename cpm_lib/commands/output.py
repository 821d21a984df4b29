"""What every command prints: aligned tables, or JSON where `--json` says."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any


def write_json(args: argparse.Namespace, content: Any) -> bool:
    """Write `content` where ``--json`` says; true if that was standard output, which takes nothing else then."""
    if args.json is None:
        return False
    text = json.dumps(content, indent=2) + "\n"
    if args.json == "-":
        sys.stdout.write(text)
        return True
    from cpm_lib.files import write_atomic

    write_atomic(args.json, text)
    return False


def print_table(rows: list[list[str]], left: int = 1) -> None:
    """Print aligned columns; the first `left` ones to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())


def as_text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.2f}"
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
