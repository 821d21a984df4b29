"""From every equation, table and figure of the paper to the code, the chapters, the tests and the records."""

from __future__ import annotations

import json
import pkgutil
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpm_lib import ledger
from cpm_lib.ablation.experiments import EXPERIMENTS
from cpm_lib.ablation.setting import PROFILES
from cpm_lib.ablation.verdict import judge_all
from cpm_lib.claims import STATUSES, Claim, read_claims
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record, find_data
from cpm_lib.text_table import TextTable
from cpm_lib.typed import replace_fields

PLACES = tuple(
    f"{kind} {number}" for kind, last in (("Eq.", 7), ("Table", 8), ("Fig.", 8)) for number in range(1, last + 1)
)
"""Everything with a number in the paper."""

_SPELLED = {"Eq.": r"(?:Eqs?\.|Equations?)", "Table": r"Tables?", "Fig.": r"(?:Figs?\.|Figures?)"}
_NUMBERS = r"\d(?:\.\d)*(?:(?:, | and )\d(?!\.))*"
_IN_SOURCES = re.compile(rf"(Tables?|Eq\.|Fig\.|Sec\.) ({_NUMBERS})")


@dataclass(frozen=True)
class Place:
    """One equation, table or figure and where it is found here.

    Attributes:
        place: as in `PLACES`; about: what it says, in a few words.
        functions: full names, ``cpm_lib.model.fused_score.fuse``; notebooks: without ending.
        tests: ``tests/<file>[::test]``; records: ids, beside those of the experiments and the claims.
        experiments: names of `cpm ablate`; open: what has no record, and why, where none can be made here.
    """

    place: str = ""
    about: str = ""
    functions: tuple[str, ...] = ()
    notebooks: tuple[str, ...] = ()
    tests: tuple[str, ...] = ()
    experiments: tuple[str, ...] = ()
    records: tuple[str, ...] = ()
    open: str = ""


def read_coverage(path: str | Path | None = None) -> list[Place]:
    """The mapping in its order; default ``data/coverage.json``.

    Raises:
        UserError: the file is missing, or an entry has an unknown field or a value of another type.
    """
    path = Path(path) if path is not None else find_data("coverage.json")
    try:
        entries: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable mapping ({error}); restore it from the repository") from error
    return [replace_fields(Place(), entry, f"{path}: '{entry.get('place')}', ") for entry in entries]


def dead_ends(places: Sequence[Place], root: Path) -> list[str]:
    """What leads nowhere, one line each: names without code, files that are missing, places without an entry.

    Args:
        root: the repository, with ``notebooks/``, ``tests/`` and ``data/results/``.
    """
    named = Counter(place.place for place in places)
    found = [f"{name}: has {named[name]} entries instead of one" for name in PLACES if named[name] != 1]
    found += [f"{name}: is no equation, table or figure of the paper" for name in sorted(set(named) - set(PLACES))]
    for place in places:
        found += [f"{place.place}: {fault}" for fault in _faults(place, root)]
    return found


def places_of(source: str) -> set[str]:
    """``"Tables 1, 4 and 6, Sec. 4.1"`` as ``{"Table 1", "Table 4", "Table 6", "Sec. 4.1"}``."""
    found = set()
    for kind, numbers in _IN_SOURCES.findall(source):
        found |= {f"{kind.removesuffix('s')} {number}" for number in re.split(", | and ", numbers)}
    return found


def records_of(place: Place, claims: Sequence[Claim], ids: Sequence[str]) -> list[str]:
    """Those of `ids` that say something of a place: named, of its experiments, or judging a claim about it."""
    sources = tuple(f"{source.name}-" for name in place.experiments for source in EXPERIMENTS[name].sources)
    judging = {name.partition(":")[0] for claim in claims for name in claim.records}
    return [id for id in ids if id in place.records or id in judging or (sources and id.startswith(sources))]


def coverage_table(places: Sequence[Place] | None = None) -> TextTable:
    """One row per equation, table and figure: the code, the chapters, the tests, and the verdicts by record."""
    places = read_coverage() if places is None else places
    records, claims = ledger.read_all(), read_claims()
    judged = judge_all(records, claims)
    rows = []
    for place in places:
        mine = [one for one in judged if place.place in places_of(one.claim.source)]
        ids = records_of(place, [one.claim for one in mine], [record.id for record in records])
        counts: Counter[str] = Counter(one.status for one in mine if one.claim.kind != "quoted")
        verdicts = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        commands = " ".join(place.experiments)
        missing = f"no record yet: `cpm ablate {commands}`" if commands else "by tests"
        evidence = [*_by_seed(ids), *([place.open] if place.open else [])] or [missing]
        rows.append(
            [
                f"{place.place}\n{place.about}",
                "\n".join(f"`{name.removeprefix('cpm_lib.')}`" for name in place.functions),
                "\n".join(f"`{name.removeprefix('tests/')}`" for name in place.tests),
                "\n".join([*(f"[{name}]({name}.ipynb)" for name in place.notebooks), *evidence, f"Claims: {verdicts}"]),
            ]
        )
    header = ["In the paper", "In cpm_lib", "In tests", "Chapters, records, verdicts"]
    return TextTable(header, rows, widths=(16, 30, 29, 25))


def command_of(record: Record) -> str:
    """The command that makes a record again; "" where none is known."""
    # Of several experiments with the same record the one that makes the fewest others.
    for experiment in sorted(EXPERIMENTS.values(), key=lambda one: len(one.sources)):
        for source in experiment.sources:
            if record.id.startswith(f"{source.name}-"):
                seeds = record.metrics.get("seeds", [record.seed or 0])
                words = ["cpm ablate", experiment.name, "--seeds", ",".join(map(str, seeds))]
                profile = next(name for name in PROFILES if record.id.startswith(f"{source.name}-{name}"))
                words += ["--profile", profile] if profile != "quick" else []
                own = record.data in ("", f"shapes:{profile}:val")
                words += [] if own else ["--data", record.data.rpartition(",")[0]]
                return " ".join(words)
    if record.id.startswith("bench-"):
        return str(record.metrics.get("command", ""))
    if record.id.startswith(("shipped-", "fig1-")):
        return "python -m cpm_lib.retrain --records"
    return ""


def remake_table(records: Sequence[Record] | None = None) -> TextTable:
    """Every record with the command that makes it again, the code and the day it was made with."""
    records = ledger.read_all() if records is None else records
    rows = []
    for record in records:
        state = (record.git.get("sha") or "unknown")[:7] + ("+" if record.git.get("dirty") else "")
        made = f"{record.created}, {state}, torch {record.torch_version}"
        rows.append([f"`{record.id}`", f"`{command_of(record)}`", made])
    caption = "The last column: day, commit (+: with further changes), version of torch."
    return TextTable(["Record", "Command", "Made with"], rows, caption, (25, 48, 27))


def _faults(place: Place, root: Path) -> Iterator[str]:
    for name in place.functions:
        try:
            pkgutil.resolve_name(name)
        except (ImportError, AttributeError, ValueError) as error:
            yield f"{name} cannot be imported ({error})"
    for name in place.notebooks:
        path = root / "notebooks" / f"{name}.ipynb"
        if not path.is_file():
            yield f"notebook {name} does not exist"
        elif not _says(path.read_text(encoding="utf-8"), place.place):
            yield f"notebook {name} does not mention it"
    for name in place.tests:
        file, _, test = name.partition("::")
        if not (root / file).is_file() or (test and f"def {test}(" not in (root / file).read_text(encoding="utf-8")):
            yield f"test {name} does not exist"
    for name in place.records:
        if not (root / "data/results" / f"{name}.json").is_file():
            yield f"record {name} does not exist"
    yield from (f"experiment {name} does not exist" for name in place.experiments if name not in EXPERIMENTS)
    yield from (f"names no {field}" for field in ("functions", "notebooks", "tests") if not getattr(place, field))
    if not (place.records or place.experiments or place.open or place.place.startswith("Eq.")):
        yield "names no record and no experiment, and does not say why"


def _says(text: str, place: str) -> bool:
    """Whether a text names a place, also as one of several: ``Figures 1, 3 and 5``."""
    kind, _, number = place.partition(" ")
    lists = re.findall(rf"{_SPELLED[kind]}[ ~]({_NUMBERS})(?!\d)", text)
    return any(number in re.split(", | and ", numbers) for numbers in lists)


def _by_seed(ids: Sequence[str]) -> list[str]:
    """Records that differ by their seed only in one line."""
    counts = Counter(re.sub(r"-s\d+$", "", id) for id in ids)
    return [f"`{id}`" + (f", {number} seeds" if number > 1 else "") for id, number in counts.items()]
