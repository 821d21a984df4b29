"""What the paper claims, what the records say, and the verdict: for every claim, without a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from cpm_lib.ablation.verdict import Judged, judge
from cpm_lib.claims import STATUSES, Claim, count_by_status, read_claims, read_words
from cpm_lib.ledger import LEVELS, Record, read_all


def entries(records: Sequence[Record] | None = None, claims: Sequence[Claim] | None = None) -> list[dict[str, Any]]:
    """Every claim at every level of evidence that says something of it; the content of ``--json``.

    Returns:
        In the order of the report: id, source, kind, form, quote, words (the claim in plain words; "" for a number),
        level ("" where no record decides), status, and parts: record, part, paper (its number), difference, low, high,
        outcome.
    """
    records = read_all() if records is None else records
    claims = read_claims() if claims is None else claims
    words = read_words()
    found = []
    for level in LEVELS:
        judged = (judge(claim, records, level) for claim in claims)
        found += [_entry(one, words) for one in judged if one.parts]
    decided = {entry["id"] for entry in found}
    rest = [Judged(claim, claim.status if claim.tolerance.sign is None else "not run", "", ()) for claim in claims]
    rest = [one for one in rest if one.claim.id not in decided]
    found += [_entry(one, words) for one in rest if one.claim.kind != "quoted"]
    found += [_entry(one, words) for one in rest if one.claim.kind == "quoted"]
    return found


def lines(records: Sequence[Record] | None = None, claims: Sequence[Claim] | None = None) -> Iterator[str]:
    """The report as text: one block per level of evidence, within it by source; quoted rows and counts last."""
    claims = read_claims() if claims is None else claims
    records = read_all() if records is None else records
    found, block = _by_source(entries(records, claims)), None
    for entry in found:
        heading = _heading(entry)
        if heading != block:
            yield from ([] if block is None else [""])
            yield heading
            block = heading
        yield from claim_lines(entry)
    yield ""
    for level, counts in by_level(found).items():
        yield f"At {level}: " + ", ".join(f"{status} {number}" for status, number in counts.items() if number)
    yield "Each claim once, by the lowest level that may judge it:"
    now = [replace(claim, status=judge(claim, records).status) for claim in claims]
    yield ", ".join(f"{status} {number}" for status, number in count_by_status(now).items()) + f"; {len(now)} claims"


def by_level(found: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, int]]:
    """Level of evidence -> verdict -> how many of these `entries` have it there."""
    counts: dict[str, dict[str, int]] = {}
    for entry in found:
        if entry["level"]:
            at = counts.setdefault(entry["level"], dict.fromkeys(STATUSES, 0))
            at[entry["status"]] += 1
    return counts


def interval(quantity: Mapping[str, Any], digits: int = 2) -> str:
    """``+0.81 [0.52, 1.10]``"""
    if quantity["difference"] is None or quantity["low"] is None:
        return "undefined"
    return f"{quantity['difference']:+.{digits}f} [{quantity['low']:.{digits}f}, {quantity['high']:.{digits}f}]"


def number(value: Any) -> str:
    """A number of the paper; what it does not print is a dash."""
    if value is None:
        return "-"
    return ", ".join(map(number, value)) if isinstance(value, tuple) else f"{value:g}"


def _entry(judged: Judged, words: Mapping[str, str]) -> dict[str, Any]:
    claim = judged.claim
    parts = [
        {"record": id, "part": part, "paper": claim.values[part], "outcome": outcome,
         **{key: quantity[key] for key in ("difference", "low", "high")}}
        for id, part, quantity, outcome in judged.parts
    ]  # fmt: skip
    if not parts:
        parts = [{"part": part, "paper": value} for part, value in claim.values.items()]
    fields = {key: getattr(claim, key) for key in ("id", "source", "kind", "quote", "form")}
    said = {"words": words.get(claim.id, "")}
    return {**fields, **said, "level": judged.level, "status": judged.status, "parts": parts}


def _by_source(found: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Claims of one place beside each other, in the order in which the places come first; blocks stay apart."""
    order: dict[tuple[str, str], int] = {}
    for entry in found:
        order.setdefault((_heading(entry), entry["source"].partition(",")[0]), len(order))
    blocks = list(dict.fromkeys(_heading(entry) for entry in found))
    return sorted(found, key=lambda e: (blocks.index(_heading(e)), order[_heading(e), e["source"].partition(",")[0]]))


def _heading(entry: Mapping[str, Any]) -> str:
    if entry["level"]:
        return f"Evidence {entry['level']}: {LEVELS[entry['level']]}"
    if entry["kind"] == "quoted":
        return "Quoted by the paper from other work, never judged"
    if entry["status"] in ("checked", "confirmed"):
        return "Decided by a test, or by the paper's own numbers"
    return "Not run"


def claim_lines(entry: Mapping[str, Any]) -> Iterator[str]:
    """One of `entries` as text."""
    yield f"{entry['id']}  ({entry['source']}): {entry['status']}"
    if entry["quote"]:
        yield f'    the paper: "{entry["quote"]}"'
    elif entry["words"]:
        yield f"    in plain words: {entry['words']}"
    yield f"    {entry['form']}"
    if not entry["level"]:
        printed = [f"{part['part']} {number(part['paper'])}" for part in entry["parts"]]
        if printed:
            yield f"    paper: {'; '.join(printed)}"
        return
    for part in entry["parts"]:
        digits = 2 if max(abs(part["difference"] or 0), abs(part["low"] or 0)) >= 0.095 else 3
        ours = f"ours {interval(part, digits)}  {part['outcome']}, {part['record']}"
        yield f"    {part['part']}: paper {number(part['paper'])}, {ours}"
