"""One rule for all claims: a claim, its records, and how it stands."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from cpm_lib.ablation.setting import PROFILES
from cpm_lib.claims import Claim, Status, Tolerance, read_claims
from cpm_lib.files import write_atomic
from cpm_lib.ledger import LEVELS, RESULTS_VERSION, Record, find_data, read_all

Outcome = Literal["holds", "sign only", "open", "other side"]
"""Of one part: as the tolerance asks, the right sign but not the size, not resolved, or on the other side."""
MIN_SEEDS = 3
"""Differences over seeds need at least as many."""


@dataclass(frozen=True)
class Judged:
    """A claim with what decides it.

    Attributes:
        parts: (record id, part, quantity, outcome); a quantity has difference, low, high, samples.
        level: of the records that decide; "" without any.
    """

    claim: Claim
    status: Status
    level: str
    parts: tuple[tuple[str, str, Mapping[str, Any], Outcome], ...]

    @property
    def records(self) -> tuple[str, ...]:
        """As `Claim.records` has them."""
        ids = dict.fromkeys(id for id, *_ in self.parts)
        return tuple(f"{id}:differences.{self.claim.id}" for id in ids)


def judge(claim: Claim, records: Sequence[Record], level: str | None = None) -> Judged:
    """How a claim stands by the records that hold its quantities, see the header of ``data/claims.json``.

    Records of the lowest level that may judge decide, of these the largest profile, and of this all seeds, each of
    them a part. A claim without such a record, or that a test, the paper's own numbers or a full-scale run decides,
    keeps its status.

    Args:
        level: judge by this level of evidence instead.
    """
    if claim.tolerance.sign is None:
        return Judged(claim, claim.status, "", ())
    able = [record for record in records if _may_judge(claim, record)]
    levels = sorted({record.level for record in able})
    chosen = level or (levels[0] if levels else "")
    able = [record for record in able if record.level == chosen]
    if not able:
        return Judged(claim, "not run", "", ())
    largest = max(_rank(record) for record in able)
    parts = []
    for record in sorted((r for r in able if _rank(r) == largest), key=lambda r: (r.seed or 0, r.id)):
        for part, quantity in quantities(claim, record).items():
            parts.append((record.id, part, quantity, outcome(claim.tolerance, quantity)))
    return Judged(claim, status(part[-1] for part in parts), chosen, tuple(parts))


def outcome(tolerance: Tolerance, quantity: Mapping[str, Any]) -> Outcome:
    """Where the interval of one quantity lies."""
    low, high, middle = quantity["low"], quantity["high"], quantity["difference"]
    if low is None or high is None or middle is None:
        return "open"
    if tolerance.sign == "0":
        assert tolerance.within is not None
        if -tolerance.within < low and high < tolerance.within:
            return "holds"
        return "other side" if low > tolerance.within or high < -tolerance.within else "open"
    if tolerance.sign == "-":
        low, high = -high, -low
    most = tolerance.max
    if low > tolerance.min and (most is None or high < most):
        return "holds"
    if high < 0 or (most is not None and low > most):
        return "other side"
    return "sign only" if low > 0 else "open"


def status(outcomes: Any) -> Status:
    """The status of a claim whose parts have these outcomes."""
    found = set(outcomes)
    if found == {"holds"}:
        return "reproduced"
    if "holds" in found:
        return "partly"
    if "other side" in found:
        return "contradicted"
    return "partly" if "sign only" in found else "not resolved"


def quantities(claim: Claim, record: Record) -> dict[str, Mapping[str, Any]]:
    """The parts of a claim in a record, in the order of the register; empty where the record has none."""
    place, _, name = claim.id.partition(".")
    found = record.differences.get(place, {})
    found = found.get(name, {}) if isinstance(found, Mapping) else {}
    return {part: found[part] for part in claim.values if part in found} if isinstance(found, Mapping) else {}


def judge_all(records: Sequence[Record] | None = None, claims: Sequence[Claim] | None = None) -> list[Judged]:
    """Every claim of the register against all records, in the order of the register."""
    records = read_all() if records is None else records
    return [judge(claim, records) for claim in (read_claims() if claims is None else claims)]


def write_statuses(path: str | Path | None = None, records: Sequence[Record] | None = None) -> int:
    """Write status and records of the judged claims into the register; all else stays as it is.

    Args:
        path: the register; default ``data/claims.json``.

    Returns:
        how many entries changed.

    Raises:
        UserError: the register is wrong, or cannot be written.
    """
    path = Path(path) if path is not None else find_data("claims.json")
    verdicts = {judged.claim.id: judged for judged in judge_all(records, read_claims(path))}
    register = json.loads(path.read_text(encoding="utf-8"))
    changed = 0
    for entry in register["claims"]:
        judged = verdicts[entry["id"]]
        if judged.claim.tolerance.sign is None:
            continue
        now = {"records": list(judged.records), "status": judged.status}
        changed += any(entry[key] != value for key, value in now.items())
        entry.update(now)
    if changed:
        write_atomic(path, json.dumps(register, indent=2, ensure_ascii=False) + "\n")
    return changed


def _may_judge(claim: Claim, record: Record) -> bool:
    found = quantities(claim, record)
    if not found or record.results_version != RESULTS_VERSION or record.profile == PROFILES[0]:
        return False
    if list(LEVELS).index(record.level) < list(LEVELS).index(claim.tolerance.level or "E0"):
        return False
    enough = all((quantity.get("samples") or 0) >= MIN_SEEDS for quantity in found.values())
    return claim.tolerance.interval != "seeds" or enough


def _rank(record: Record) -> int:
    """Size of the profile; records without one count as the largest."""
    return PROFILES.index(record.profile) if record.profile in PROFILES else len(PROFILES)
