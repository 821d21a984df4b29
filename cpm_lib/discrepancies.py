"""The register of differences: what the paper says, what the authors' code does, and which switch tells them apart."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from cpm_lib.claims import Claim, read_claims
from cpm_lib.config import OFFICIAL, Conventions
from cpm_lib.errors import UserError
from cpm_lib.ledger import Table, find_data
from cpm_lib.text_table import TextTable
from cpm_lib.typed import check_names

WEIGHTS = ("high", "moderate", "low", "unknown")
"""How much a difference matters, in falling order."""


@dataclass(frozen=True)
class Discrepancy:
    """One difference between the paper and the authors' code.

    Attributes:
        id: small letters, digits and dashes; topic: in a few words.
        paper, code, our_default: what each of the three does.
        section: place in the paper, or "none"; facts: section of the facts sheet on the authors' code.
        switch: dotted setting of `Config` that chooses, None where there is nothing to choose.
        evidence: test or recording that holds this side to its word, as ``tests/<file>[::test]``.
        matters: a word of `WEIGHTS`, a colon, and why.
    """

    id: str
    topic: str
    paper: str
    code: str
    section: str
    facts: str
    our_default: str
    switch: str | None
    evidence: str | None
    matters: str

    @property
    def weight(self) -> str:
        """The first word of `matters`."""
        return self.matters.partition(":")[0]


def read_discrepancies(path: str | Path | None = None) -> list[Discrepancy]:
    """The register in its order; default ``data/discrepancies.json``.

    Raises:
        UserError: the file is missing, or an entry lacks a field or has an unknown one.
    """
    path = Path(path) if path is not None else find_data("discrepancies.json")
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable register ({error}); restore it from the repository") from error
    found = []
    for entry in entries:
        where = f"{path}: '{entry.get('id')}', "
        check_names(Discrepancy, entry, where)
        missing = [field.name for field in fields(Discrepancy) if field.name not in entry]
        if missing:
            raise UserError(f"{where}{missing[0]}: is missing")
        found.append(Discrepancy(**entry))
    return found


def register_table(weight: str, entries: Sequence[Discrepancy] | None = None) -> TextTable:
    """The differences that matter this much (`WEIGHTS`), one a row."""
    entries = read_discrepancies() if entries is None else entries
    rows = []
    for entry in entries:
        if entry.weight == weight:
            place = "" if entry.section == "none" else f"\n{entry.section}"
            chosen = f"\n`{entry.switch}`" if entry.switch else ""
            why = entry.matters.partition(": ")[2]
            rows.append(
                [entry.topic + place, entry.paper, entry.code, entry.our_default + chosen, why[:1].upper() + why[1:]]
            )
    header = ["Topic", "The paper", "The authors' code", "This library", "Why it matters"]
    return TextTable(header, rows, widths=(16, 18, 24, 23, 19))


def count_table(entries: Sequence[Discrepancy] | None = None) -> Table:
    """How many differences matter how much, and how many of them have a switch and a test."""
    entries = read_discrepancies() if entries is None else entries
    rows = []
    for weight in WEIGHTS:
        chosen = [entry for entry in entries if entry.weight == weight]
        switched = sum(entry.switch is not None for entry in chosen)
        tested = sum(entry.evidence is not None for entry in chosen)
        silent = sum(entry.paper.startswith("Not mentioned") for entry in chosen)
        rows.append([weight, *map(str, (len(chosen), silent, switched, tested))])
    columns = [[int(row[column]) for row in rows] for column in range(1, 5)]
    rows.append(["all", *(str(sum(column)) for column in columns)])
    return Table(["Matters", "differences", "paper is silent", "with a switch", "with a test"], rows)


def switch_table() -> TextTable:
    """Every switch of `Conventions` with its value in both conventions, as config.py explains it."""
    ours, words = Conventions(), _explanations()
    rows = [
        [f"`{name}`", f"`{getattr(ours, name)}`", f"`{value}`", words[name]] for name, value in vars(OFFICIAL).items()
    ]
    return TextTable(["Switch", "corrected", "official", "What it does"], rows, widths=(22, 11, 11, 56))


def contradiction_table(claims: Sequence[Claim] | None = None) -> TextTable:
    """Where the paper contradicts itself: the claims of kind internal, decided from its own numbers."""
    claims = read_claims() if claims is None else claims
    rows = []
    for claim in claims:
        if claim.kind == "internal":
            quote = f"\n“{claim.quote}”" if claim.quote else ""
            rows.append([claim.source, claim.form[:1].upper() + claim.form[1:] + "." + quote, claim.note])
    return TextTable(["In the paper", "Contradiction", "The arithmetic"], rows, widths=(16, 40, 44))


def _explanations() -> dict[str, str]:
    """Field -> the text below it in the source of `Conventions`; Python itself does not keep these."""
    source = inspect.getsource(Conventions)
    found = re.findall(r'^    (\w+): [^\n]*\n    """(.*?)"""', source, flags=re.DOTALL | re.MULTILINE)
    # Readers of a page have no facts sheet.
    return {name: " ".join(re.sub(r"\s*\(facts [^)]*\)", "", text).split()) for name, text in found}
