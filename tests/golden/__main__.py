"""`python -m tests.golden [--json F]`: compare every recorded file and say how it went."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from tests.golden import checks, checks_input, checks_model, harness  # noqa: F401  (they register the comparisons)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the result as JSON")
    parser.add_argument("--file", nargs="+", choices=sorted(harness.CHECKS), metavar="NAME", help="only these files")
    args = parser.parse_args(arguments)
    # As the recordings were made: sums of floats depend on the number of threads.
    torch.set_num_threads(1)
    began, files = time.monotonic(), args.file or sorted(harness.CHECKS)
    print(f"comparing {len(files)} files of {harness.folder()} (about half a minute)")
    results = [report(file) for file in files]
    failed = [result["file"] for result in results if not result["ok"]]
    if args.json:
        content = {"folder": str(harness.folder()), "torch": torch.__version__, "ok": not failed, "files": results}
        Path(args.json).write_text(json.dumps(content, indent=2) + "\n")
    compared = sum(result["compared"] for result in results)
    verdict = f"DIFFERENT: {', '.join(failed)}" if failed else "all the same within the tolerances"
    print(f"{len(files)} files, {compared} arrays compared in {time.monotonic() - began:.0f} s: {verdict}")
    return 1 if failed else 0


def report(file: str) -> dict[str, Any]:
    """Compare one file and print a line; a missing or malformed file is a mismatch."""
    try:
        r = harness.run(file)
    except Exception as error:
        # Whatever goes wrong with one file, the others are still compared.
        r = harness.Recording(file, {})
        r.mismatches.append(f"{type(error).__name__}: {error}")
    for key in r.unseen():
        r.mismatches.append(f"{key}: nobody compares this array")
    result = {
        "file": file,
        "compared": len(set(r.compared)),
        "max_abs": r.max_abs,
        "max_rel": r.max_rel,
        "not_compared": r.not_compared,
        "ok": r.ok,
        "mismatches": r.mismatches,
    }
    skipped = ", ".join(sorted(set(r.not_compared) - {"torch_version"}))
    print(
        f"{file:30} compared {result['compared']:3}  max_abs {r.max_abs:.1e}  max_rel {r.max_rel:.1e}  "
        f"{'ok' if r.ok else 'DIFFERENT'}{f'  not compared: {skipped}' if skipped else ''}",
        flush=True,
    )
    for mismatch in r.mismatches:
        print(f"    {mismatch}")
    return result


if __name__ == "__main__":
    sys.exit(main())
