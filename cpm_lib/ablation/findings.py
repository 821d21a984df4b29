"""What came out, in words: claims by verdict, and what the switches between paper and code change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpm_lib.ablation.report import number
from cpm_lib.ablation.verdict import Judged, judge_all
from cpm_lib.claims import read_words
from cpm_lib.ledger import LEVELS, Record, Table, read_all, read_current
from cpm_lib.text_table import TextTable

OUTCOMES: Mapping[str, str] = {
    "holds": "as claimed",
    "sign only": "right sign, not the size",
    "open": "not resolved",
    "other side": "the other way",
}
"""Outcome of one part -> the words for it."""


def by_verdict(status: str, records: Sequence[Record] | None = None) -> TextTable:
    """The claims about sizes, signs and causes that stand so, by their place in the paper; those about time, which
    need no training and have a level of their own, are left to `pages.claims_table`.

    A part that several runs measured shows the lowest and the highest difference, a single run its 95 % interval.
    """
    words = read_words()
    judged = [one for one in judge_all(records) if one.status == status and one.claim.kind != "speed"]
    chosen = [one for one in judged if one.claim.tolerance.sign is not None]
    rows = [[one.claim.source, words[one.claim.id], *_measured(one)] for one in sorted(chosen, key=_order(chosen))]
    levels = sorted({one.level for one in chosen if one.level})
    caption = "; ".join(f"Evidence {level}: {LEVELS[level]}" for level in levels)
    header = ["In the paper", "It claims", "Paper", "Here"]
    return TextTable(header, rows or [["none", "", "", ""]], caption, (15, 31, 16, 38))


def level_table(records: Sequence[Record] | None = None) -> Table:
    """How many records each level of evidence has, how many claims they decide, and how many wait for that level."""
    records = read_all() if records is None else records
    judged = judge_all(records)
    rows = []
    for level, meaning in LEVELS.items():
        made = sum(record.level == level for record in records)
        decided = sum(one.level == level or (level == "E0" and one.status == "checked") for one in judged)
        waiting = sum(one.status == "not run" and one.claim.tolerance.level == level for one in judged)
        rows.append([f"{level}: {meaning}", str(made), str(decided), str(waiting)])
    return Table(["Level", "records", "claims decided", "not run, need it"], rows)


def switch_effects(ids: Sequence[str], records: Sequence[Record] | None = None) -> Table:
    """What the authors' value of a switch changes: AP with it minus AP without, mean over seeds with its 95 % interval.

    Args:
        ids: of records of ``cpm ablate switches``; one that does not exist yet shows as "not run".
    """
    known = {record.id: record for record in (read_current() if records is None else records)}
    metrics = ("AP", "AP75", "AP90")
    rows, levels = [], set()
    for id in ids:
        name = id.removeprefix("switch-").rpartition("-")[0].replace("-", "_")
        if id not in known:
            rows.append([name, "not run", *["–"] * len(metrics)])
            continue
        record = known[id]
        found: Mapping[str, Any] = record.differences["switches"][name]
        levels.add(f"Evidence {record.level}: {LEVELS[record.level]}. ")
        rows.append([name, str(len(record.metrics["seeds"])), *(_signed(found[metric]) for metric in metrics)])
    caption = "".join(sorted(levels)) + "The authors' value minus ours [95 % by Student's t over the seeds]."
    return Table(["Switch", "seeds", *metrics], rows, caption)


def _measured(one: Judged) -> list[str]:
    """The paper's numbers, and ours with how each part came out."""
    printed = [f"{part}: {number(value)}" for part, value in one.claim.values.items() if value is not None]
    by_part: dict[str, list[tuple[Mapping[str, Any], str]]] = {}
    for _, part, quantity, outcome in one.parts:
        by_part.setdefault(part, []).append((quantity, outcome))
    ours = []
    for part, runs in by_part.items():
        outcomes = [outcome for _, outcome in runs]
        words = ", ".join(
            (f"{outcomes.count(outcome)} x " if len(set(outcomes)) > 1 else "") + text
            for outcome, text in OUTCOMES.items()
            if outcome in outcomes
        )
        ours.append(f"{part}: {_range([quantity for quantity, _ in runs])}, {words}")
    return ["\n".join(printed) or "no number", "\n".join(ours) or "not run"]


def _range(runs: Sequence[Mapping[str, Any]]) -> str:
    middles = [run["difference"] for run in runs if run["difference"] is not None]
    if len(runs) == 1 or len(middles) < 2:
        return _signed(runs[0])
    return f"{_rounded(min(middles))} to {_rounded(max(middles))} in {len(runs)} runs"


def _signed(quantity: Mapping[str, Any]) -> str:
    """A difference with its interval, as far as there are any."""
    middle, low, high = quantity["difference"], quantity["low"], quantity["high"]
    if middle is None:
        return "undefined"
    return _rounded(middle) + (f" [{_rounded(low)}, {_rounded(high)}]" if low is not None else "")


def _rounded(value: float) -> str:
    """Two decimals, three for small numbers: correlations and shares beside points of AP."""
    # Adding 0 makes a rounded -0 positive.
    return f"{round(value, 3) + 0.0:+.3f}" if abs(value) < 0.095 else f"{value:+.2f}"


def _order(judged: Sequence[Judged]) -> Any:
    """A key that brings claims of one place together, in the order in which the places come first."""
    places: dict[str, int] = {}
    for one in judged:
        places.setdefault(one.claim.source.partition(",")[0], len(places))
    return lambda one: places[one.claim.source.partition(",")[0]]
