"""The result of a benchmark as a record, for the pages of the book."""

from __future__ import annotations

import time
from typing import Any

from cpm_lib import ledger
from cpm_lib.bench import report

NOTES = (
    "Untrained weights and drawn images; settings force the same number of RoIs. Ratios are of one run in which both "
    "sides take turns; absolute times hold for this machine alone."
)


def record(id: str, content: dict[str, Any]) -> ledger.Record:
    """A record with the content of ``--json`` and the command as its metrics; cpu_s is that of this process so far.

    Raises:
        UserError: `id` is no id of a record.
    """
    known = {key: content.get(key, "") for key in ("preset", "profile")}
    claim, device = f"Speed: {report.head(content)}", content["processor"]
    return ledger.make(id, claim, "E0", **known, device=device, metrics=content, notes=NOTES, cpu_s=time.process_time())
