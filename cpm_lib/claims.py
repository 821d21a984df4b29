"""The claims register: what the paper says, the tolerance fixed before judging it, and how it stands."""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

from cpm_lib.errors import UserError
from cpm_lib.ledger import find_data
from cpm_lib.typed import check_names, coerce, replace_fields

Kind = Literal["absolute", "quoted", "difference", "mechanism", "equation", "setting", "speed", "internal"]
Status = Literal["reproduced", "partly", "not resolved", "contradicted", "not run", "checked", "confirmed"]
Level = Literal["E0", "E1", "E2", "E3", "E4"]

KINDS: tuple[str, ...] = typing.get_args(Kind)
STATUSES: tuple[str, ...] = typing.get_args(Status)
QUOTE_WORDS = 20
"""Most words of the paper that an entry repeats."""

_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*\.[a-z0-9]+(-[a-z0-9]+)*")
_PLACES = r"(Abstract|Sec\. \d(\.\d)*|Eq\. \d|Fig\. \d|Tables? \d(, \d)*( and \d)?)"
_SOURCE = re.compile(rf"{_PLACES}(, {_PLACES})*")
_WITHOUT_RECORD: Mapping[str, tuple[str, ...]] = {"internal": ("confirmed",), "quoted": ("not run",)}
_BY_TEST = ("equation", "setting")
# Whether a claim compares; one of speed may or may not.
_COMPARES: Mapping[str, bool] = {"difference": True, "mechanism": True, "absolute": False}
_NESTED = ("values", "tolerance")

Value = float | None | tuple[float, ...]


@dataclass(frozen=True)
class Tolerance:
    """When a claim counts as reproduced; ``data/claims.json`` explains each field.

    Which fields a kind needs: `abs` for a number at the paper's scale; `sign` and `interval`, with `min` and `max`
    or `within`, for a comparison. Those of `difference` and `mechanism` are always comparisons.
    """

    level: Level | None = None
    sign: Literal["+", "-", "0"] | None = None
    min: float = 0.0
    max: float | None = None
    within: float | None = None
    interval: Literal["images", "seeds", "repeats"] | None = None
    abs: float | None = None
    abs_other: float | None = None
    relative: float | None = None


@dataclass(frozen=True)
class Claim:
    """One sentence, table row or figure of the paper.

    Attributes:
        id: ``<place>.<name>``, small letters, digits and dashes, e.g. ``table4.stage2-over-stage1``. Its quantities
            are found in a record at ``differences.<id>.<part>``.
        source: where the paper says it, e.g. ``Table 4, Sec. 4.1.1``.
        quote: at most 20 words of the paper; empty where the claim is a number.
        form: the statement that a run can decide.
        values: the paper's number of each part; None is illegible or not printed. A setting may be a tuple.
        records: what judges it: ``record`` or ``record:dotted.key``, for equations and settings
            ``tests/<file>[::test]``.
        note: at which level it can be tested, and what to beware of.
    """

    id: str
    source: str
    kind: Kind
    quote: str
    form: str
    values: Mapping[str, Value]
    tolerance: Tolerance
    records: tuple[str, ...]
    status: Status
    note: str


def read_claims(path: str | Path | None = None) -> list[Claim]:
    """The register in its order; default ``data/claims.json``, see `ledger.find_data`.

    Raises:
        UserError: the file is missing or no register, or an entry is wrong (file, id and field are named).
    """
    path = Path(path) if path is not None else find_data("claims.json")
    try:
        register = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); it belongs to the repository") from error
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); restore it from the repository") from error
    entries = register.get("claims") if isinstance(register, dict) else None
    if not isinstance(entries, list):
        raise UserError(f"{path}: has no list 'claims'; restore it from the repository")
    claims: dict[str, Claim] = {}
    for number, entry in enumerate(entries, start=1):
        claim = _claim(entry, number, path)
        if claim.id in claims:
            raise UserError(f"{path}: claim '{claim.id}', id: used twice; give each claim its own")
        claims[claim.id] = claim
    return list(claims.values())


def read_words(path: str | Path | None = None) -> dict[str, str]:
    """Claim -> what it says in plain words; default ``data/plain_words.json``.

    Raises:
        UserError: the file is missing or not JSON.
    """
    path = Path(path) if path is not None else find_data("plain_words.json")
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); restore it from the repository") from error


def count_by_status(claims: Sequence[Claim]) -> dict[str, int]:
    """How many claims have each status, in the order of `STATUSES`, zeros included."""
    return {status: sum(claim.status == status for claim in claims) for status in STATUSES}


def _claim(entry: Any, number: int, path: Path) -> Claim:
    if not isinstance(entry, dict) or not isinstance(entry.get("id"), str):
        raise UserError(f"{path}: claim {number} is not an object with an id; write the fields of a claim")
    where = f"{path}: claim '{entry['id']}', "
    check_names(Claim, entry, where)
    for field in fields(Claim):
        if field.name not in entry:
            raise UserError(f"{where}{field.name}: is missing; every claim has all {len(fields(Claim))} fields")
    hints = typing.get_type_hints(Claim)
    plain = {name: coerce(hints[name], entry[name], where + name) for name in entry if name not in _NESTED}
    for name in _NESTED:
        if not isinstance(entry[name], dict):
            raise UserError(f"{where}{name}: {entry[name]!r} is not an object of names and values")
    values = {part: _value(value, f"{where}values.{part}") for part, value in entry["values"].items()}
    tolerance = replace_fields(Tolerance(), entry["tolerance"], f"{where}tolerance.")
    claim = Claim(**plain, values=values, tolerance=tolerance)
    for name, message in _faults(claim):
        raise UserError(f"{where}{name}: {message}")
    return claim


def _value(value: Any, name: str) -> Value:
    found: Value = coerce(Value, value, name)
    numbers = found if isinstance(found, tuple) else (0.0 if found is None else found,)
    if not all(map(math.isfinite, numbers)):
        raise UserError(f"{name}: {value!r} is not finite; null is for what cannot be read")
    return found


def _faults(claim: Claim) -> typing.Iterator[tuple[str, str]]:
    """(field, what is wrong and how to mend it) for everything the types do not say."""
    if not _ID.fullmatch(claim.id):
        yield "id", "use <place>.<name> of small letters, digits and dashes, e.g. table4.stage2-over-stage1"
    if not _SOURCE.fullmatch(claim.source):
        yield "source", f"'{claim.source}' is no place in the paper; write e.g. 'Table 4, Sec. 4.1.1'"
    if len(claim.quote.split()) > QUOTE_WORDS:
        yield "quote", f"{len(claim.quote.split())} words; shorten it to {QUOTE_WORDS}"
    if not claim.form:
        yield "form", "is empty; say what a run can decide"
    yield from _tolerance_faults(claim)
    yield from _status_faults(claim)


def _tolerance_faults(claim: Claim) -> typing.Iterator[tuple[str, str]]:
    tolerance, kind = claim.tolerance, claim.kind
    if kind in ("quoted", "internal"):
        if tolerance != Tolerance():
            yield "tolerance", f"a claim of kind {kind} is not judged; leave it empty"
        return
    if tolerance.level is None:
        yield "tolerance.level", "is missing; name the lowest level of evidence that may judge"
    if kind in _BY_TEST:
        return
    compared = tolerance.sign is not None
    if _COMPARES.get(kind, compared) != compared:
        yield "tolerance.sign", f"a claim of kind {kind} {'has none' if compared else 'needs one'}"
    if not compared and tolerance.abs is None:
        yield "tolerance.abs", "is missing; say how close the number has to come"
    if compared and tolerance.interval is None:
        yield "tolerance.interval", "is missing; say over what the interval is taken"
    if (tolerance.sign == "0") != (tolerance.within is not None):
        yield "tolerance.within", "belongs to sign 0, and to no other"
    if not claim.values:
        yield "values", "are empty; name at least one part, null where no number is printed"


def _status_faults(claim: Claim) -> typing.Iterator[tuple[str, str]]:
    allowed = ("checked", "not run") if claim.kind in _BY_TEST else STATUSES[:5]
    allowed = _WITHOUT_RECORD.get(claim.kind, allowed)
    if claim.status not in allowed:
        yield "status", f"'{claim.status}' does not go with kind {claim.kind}; choose from {', '.join(allowed)}"
    if claim.status not in ("not run", "confirmed") and not claim.records:
        yield "records", f"are empty, yet the status is '{claim.status}'; name what judged it"
    if claim.status == "not run" and claim.kind in _BY_TEST and claim.records:
        yield "status", "'not run', yet tests are named; a test that exists makes it 'checked'"
