"""What the records cost: seconds as they were measured, and the energy these make under a stated assumption."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass

from cpm_lib.ledger import LEVELS, Record, Table, read_all

CPU_WATTS = 15.0
"""Assumed power of one busy CPU core with its share of memory, cooling and power supply. Servers have 5 to 20 W per
core; nothing was measured, so the energy is right in its order of magnitude only."""
GPU_WATTS = 700.0
"""Assumed power of one busy GPU: the board power of an H100 SXM, an upper bound for most others. It is taken for the
whole time by the clock, also while the GPU waits for the processor."""
SECONDS_PER_HOUR = 3600
EVERYTHING = "all that made it"
COUNTED = (
    "Counted: what the records hold, interrupted attempts at their run folders included. Not counted: runs that led to "
    "no record, runs whose folders were deleted, the time of processes that were killed, tests and this book."
)
"""What the seconds of records are those of."""

_COVERS = re.compile(r"wall_s and cpu_s are those of (.*?)\.?$")
_GPU = re.compile(r"NVIDIA|Tesla|TITAN|GeForce|Radeon|Instinct")


@dataclass(frozen=True)
class Cost:
    """What one record cost.

    Attributes:
        wall_s, cpu_s: seconds by the clock and of all cores together; None where the record has none.
        covers: what these seconds are those of.
        shared: id of an earlier record with the same seconds, because one run made both; "" if there is none.
    """

    id: str
    level: str
    profile: str
    device: str
    wall_s: float | None
    cpu_s: float | None
    covers: str
    shared: str

    @property
    def watt_hours(self) -> float:
        """Estimated energy, a GPU counted for the whole time by the clock; 0 without seconds."""
        gpu = (self.wall_s or 0.0) * GPU_WATTS if _GPU.search(self.device) else 0.0
        return ((self.cpu_s or 0.0) * CPU_WATTS + gpu) / SECONDS_PER_HOUR


def costs(records: Sequence[Record] | None = None) -> list[Cost]:
    """The cost of every record, in the order of their ids; default: those in ``data/results``."""
    records = read_all() if records is None else records
    first: dict[tuple[float | None, float | None, str], str] = {}
    found = []
    for record in records:
        covers = _COVERS.search(record.notes)
        # Two runs never agree to the last digit of both times.
        same = (record.wall_s, record.cpu_s, record.device)
        before = first.setdefault(same, record.id) if record.wall_s is not None else record.id
        found.append(
            Cost(
                record.id, record.level, record.profile, record.device, record.wall_s, record.cpu_s,
                covers[1] if covers else EVERYTHING, "" if before == record.id else before,
            )
        )  # fmt: skip
    return found


def total_table(records: Sequence[Record] | None = None) -> Table:
    """Hours and estimated energy of all records by level of evidence, profile and device.

    A run that made two records counts once. A joint record holds one sum over its trainings, so a training that two
    of them share, or two rows of one, counts in each; the caption says how many do.
    """
    records = read_all() if records is None else records
    groups: dict[tuple[str, str, str], list[Cost]] = {}
    for cost in costs(records):
        groups.setdefault((cost.level, cost.profile or "none", cost.device), []).append(cost)
    rows = [_total([f"{key[0]}: {LEVELS[key[0]]}", *key[1:]], groups[key]) for key in sorted(groups)]
    rows.append(_total(["all", "", ""], [cost for group in groups.values() for cost in group]))
    header = ["Evidence", "profile", "device", "records", "without time", "hours", "CPU hours", "Wh, estimated"]
    twice = _counted_again(records)
    caption = (
        f"Assumed: {CPU_WATTS:g} W for each busy core, {GPU_WATTS:g} W for a GPU over the whole time by the clock, so "
        f"its energy is an upper bound. Records without a time add nothing to the hours. {COUNTED}"
    )
    if twice:
        caption += f" Trainings that several rows of joint records share, and that are counted again: {twice}."
    return Table(header, rows, caption)


def cost_table(records: Sequence[Record] | None = None) -> Table:
    """Minutes of every record, and what they cover."""
    rows = []
    for cost in costs(records):
        covers = f"the run of {cost.shared}" if cost.shared else cost.covers
        covers = "–" if cost.wall_s is None and cost.cpu_s is None else covers
        minutes = ["not recorded" if value is None else f"{value / 60:.1f}" for value in (cost.wall_s, cost.cpu_s)]
        rows.append([cost.id, cost.level, cost.device, *minutes, covers])
    return Table(["Record", "level", "device", "minutes", "CPU minutes", "of what"], rows)


def _counted_again(records: Sequence[Record]) -> int:
    """Trainings in the sums of joint records beyond the different ones: equal settings and seed are one run."""
    runs = [
        (record.profile, record.data_fingerprint, json.dumps(settings, sort_keys=True), seed)
        for record in records
        if record.id.startswith("joint-") and record.cpu_s is not None
        for row in record.metrics["configs"].values()
        for settings in [{key: value for key, value in row.items() if key != "preset"}]
        for seed in record.metrics["seeds"]
    ]
    return len(runs) - len(set(runs))


def _total(names: list[str], group: Sequence[Cost]) -> list[str]:
    once = [cost for cost in group if not cost.shared]
    wall, cpu = (sum(getattr(cost, name) or 0.0 for cost in once) / SECONDS_PER_HOUR for name in ("wall_s", "cpu_s"))
    untimed = sum(cost.wall_s is None and cost.cpu_s is None for cost in group)
    return [
        *names,
        str(len(group)),
        str(untimed),
        f"{wall:.2f}",
        f"{cpu:.2f}",
        f"{sum(cost.watt_hours for cost in once):.1f}",
    ]
