"""How a claim gets its verdict: the intervals of its parts beside the tolerance that was fixed before the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cpm_lib import figure_report
from cpm_lib.ablation import verdict as rule
from cpm_lib.claims import STATUSES, Claim, read_words
from cpm_lib.errors import UserError
from cpm_lib.explorers.component import Explorer
from cpm_lib.ledger import LEVELS, Record, read_all
from cpm_lib.typed import nearest

OVER: Mapping[str, str] = {
    "images": "paired bootstrap over the images, each seed a part",
    "seeds": "Student's t over the seeds",
    "repeats": "Student's t over repeats",
}
"""What the interval of a claim is taken over -> the words for it."""


def verdict(claim: str, *, records: Sequence[Record] | None = None, claims: Sequence[Claim] | None = None) -> Explorer:
    """Choose a claim of the register, move its tolerance or widen its intervals, and see what becomes of the verdict.

    Args:
        claim: id of the one to start with.
        records, claims: as for `judge_all`. Claims that no record's interval judges are left out.

    Raises:
        UserError: no record judges the claim to start with.
    """
    records = read_all() if records is None else records
    judged = {one.claim.id: one for one in rule.judge_all(records, claims) if one.parts}
    if claim not in judged:
        hint = nearest(claim, list(judged)) if judged else "; make some with `cpm ablate`"
        raise UserError(f"explorer 'verdict': no record judges '{claim}'{hint}")
    seeds = {record.id: record.seed for record in records}
    words = read_words()
    return Explorer(
        "verdict",
        "What makes a verdict?",
        f"The measured intervals of the claim {claim} on one axis, with the range in which its tolerance asks them to "
        "lie. With scripts any judged claim can be chosen, its tolerance moved and its intervals made wider.",
        {
            "claims": [_claim(one, words.get(id, ""), seeds) for id, one in judged.items()],
            "statuses": list(STATUSES),
            "start": claim,
        },
        figure_report.intervals(judged[claim]),
    )


def _claim(one: rule.Judged, words: str, seeds: Mapping[str, int | None]) -> dict[str, Any]:
    claim, tolerance = one.claim, one.claim.tolerance
    # The runs of one part beside each other.
    parts = [
        {"part": name, "paper": paper, "run": _run(tolerance.interval, quantity, seeds[record]),
         **{key: quantity[key] for key in ("difference", "low", "high")}}
        for name, paper in claim.values.items()
        for record, part, quantity, _ in one.parts
        if part == name
    ]  # fmt: skip
    return {
        "id": claim.id,
        "source": claim.source,
        "words": words,
        "form": claim.form,
        "status": one.status,
        "level": f"{one.level}: {LEVELS[one.level]}",
        "over": OVER[tolerance.interval or "images"],
        "tolerance": {key: getattr(tolerance, key) for key in ("sign", "min", "max", "within")},
        "parts": parts,
    }


def _run(interval: str | None, quantity: Mapping[str, Any], seed: int | None) -> str:
    """Which run a part comes from, in few letters: parts over seeds or repeats come from all of them."""
    return f"seed {seed}" if interval == "images" else f"{quantity['samples']} {interval}"
