"""Tables for the pages of the book: experiments and claims as the records have them, never typed in."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from cpm_lib.ablation import experiments, joint_record, report, tables
from cpm_lib.claims import count_by_status, read_claims, read_words
from cpm_lib.ledger import LEVELS, Record, Table, get, read_current
from cpm_lib.text_table import TextTable


def experiment_table(
    name: str, *, columns: Sequence[str] | None = None, records: Sequence[Record] | None = None
) -> Table:
    """What `cpm ablate NAME` prints: our rows, mean and standard deviation over seeds, with the paper's below.

    Args:
        columns: headings to show; default all.
        records: default: those in ``data/results``.

    Raises:
        UserError: no such experiment.
    """
    experiment = experiments.get(name)
    known = read_current() if records is None else records
    sources = tuple(f"{source.name}-" for source in experiment.sources)
    # Pages show the quick shapes; times (E0) are taken at the paper's size, and those of two machines are two things.
    shown = (("E0", "paper"), ("E1", "quick"))
    used = [record for record in known if record.id.startswith(sources) and (record.level, record.profile) in shown]
    used = [record for record in used if record.level != "E0" or record.device == used[0].device]
    found = tables.content(experiment, used)
    headings = list(columns or experiment.columns)
    timed = found["level"] == "E0"
    digits = 2 if timed else 1 if "AP" in experiment.columns else 3
    printed = "  the paper" if timed else "  the paper, COCO"
    rows = []
    for row in found["rows"]:
        rows.append([row["name"], str(row["seeds"]), *(_mean(row, heading, digits) for heading in headings)])
        if row["paper"]:
            rows.append([printed, "", *(report.number(row["paper"].get(heading)) for heading in headings)])
    if timed:
        rows = [[name, *cells] for name, _, *cells in rows]
        return Table(["", *headings], rows, f"{experiment.table}. Medians, measured on {used[0].device}.")
    level = f"Evidence {found['level']}: {LEVELS[found['level']]}. " if found["level"] else "Not run yet. "
    caption = f"{experiment.table}. {level}Mean over seeds ± standard deviation."
    return Table(["", "seeds", *headings], rows, caption)


def claims_table(*beginnings: str, level: str | None = None, records: Sequence[Record] | None = None) -> TextTable:
    """What the paper claims, what the records say, and the verdict, for claims whose ids begin so.

    Args:
        level: of evidence; default: that at which each claim was to be decided. With a level only claims of which its
            records say something.

    Returns:
        One row per claim, in the order of `report.entries`: what it says in plain words and the statement that is
        tested, the paper's numbers, ours over all seeds, the verdict, the records. A claim without a record says why
        there is no number.
    """
    chosen = [claim for claim in read_claims() if claim.id.startswith(beginnings)]
    rows, words = [], read_words()
    wanted = {claim.id: level or claim.tolerance.level for claim in chosen}
    for entry in report.entries(read_current() if records is None else records, chosen):
        if entry["level"] != wanted[entry["id"]] and (entry["level"] or level):
            continue
        by_part: dict[str, list[dict[str, Any]]] = {}
        for part in entry["parts"]:
            by_part.setdefault(part["part"].replace("-", " "), []).append(part)
        paper = {name: same[0]["paper"] for name, same in by_part.items()}
        printed = [f"{name} {report.number(value)}" for name, value in paper.items() if value is not None]
        measured = [f"{name} {_over_seeds(same)}" for name, same in by_part.items() if "difference" in same[0]]
        numbers = ["\n".join(lines) or "–" for lines in (printed, measured)]
        statement = "\n".join(filter(None, (words.get(entry["id"]), entry["form"])))
        rows.append([statement, *numbers, entry["status"], _records(entry["parts"])])
    meaning = f"Evidence {level}: {LEVELS[level]}. " if level else ""
    caption = (
        f"{meaning}Ours: mean over seeds (of times: over repeats), within the lowest and the highest end of their 95 % "
        "intervals."
    )
    return TextTable(["Claim", "Paper", "Ours [95 %]", "Verdict", "Record"], rows, caption, (31, 14, 25, 14, 16))


def _unbroken(text: str) -> str:
    """A narrow column would tear numbers apart."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def beside_table(record: str) -> Table:
    """Differences between trainings that stand beside a record's claims and judge none, with their 95 % intervals."""
    columns = joint_record.BESIDE_METRICS
    rows = [
        [name, *(_unbroken(report.interval(by_metric[metric])) for metric in columns)]
        for name, by_metric in get(record, "metrics.beside").items()
    ]
    return Table(["difference [95 %]", *columns], rows, f"{record}: paired by seed, Student's t over the seeds.")


def _over_seeds(parts: Sequence[Mapping[str, Any]]) -> str:
    """Mean of one quantity over the records of several seeds, with the reach of their intervals."""
    known = [part for part in parts if part.get("difference") is not None and part["low"] is not None]
    if not known:
        return "undefined"
    whole = {
        "difference": statistics.fmean(part["difference"] for part in known),
        "low": min(part["low"] for part in known),
        "high": max(part["high"] for part in known),
    }
    return _unbroken(report.interval(whole))


def _records(parts: Sequence[Mapping[str, Any]]) -> str:
    ids = list(dict.fromkeys(part["record"] for part in parts if "record" in part))
    return "" if not ids else ids[0] if len(ids) == 1 else f"{min(ids, key=len)}, {len(ids)} seeds"


def status_table() -> Table:
    """How many claims have each verdict."""
    counts = count_by_status(read_claims())
    return Table(["Verdict", "claims"], [[status, str(number)] for status, number in counts.items()])


def _mean(row: dict[str, dict[str, float | None]], heading: str, digits: int) -> str:
    mean, spread = row["ours"].get(heading), row["sd"].get(heading)
    if mean is None:
        return "–"
    return _unbroken(f"{mean:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread is not None else ""))
