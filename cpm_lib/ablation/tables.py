"""The printed table of an experiment: our rows beside the paper's, and its claims with their verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cpm_lib.ablation.experiments import Experiment, Shown
from cpm_lib.ablation.report import claim_lines, entries, number
from cpm_lib.claims import Claim, read_claims
from cpm_lib.ledger import LEVELS, Record


def content(experiment: Experiment, records: Sequence[Record]) -> dict[str, Any]:
    """What is printed, as JSON: name, table, level, records, quoted, rows and claims."""
    papers = {claim.id: claim for claim in read_claims()}
    rows = [_row(shown, experiment.columns, records, papers) for shown in experiment.rows]
    return {
        "name": experiment.name,
        "table": experiment.table,
        "level": records[0].level if records else "",
        "records": [record.id for record in records],
        "quoted": experiment.quoted,
        "rows": [row for row in rows if row["seeds"] or experiment.quoted],
        "claims": _claims(experiment, records),
    }


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The same as text."""
    level = f"; evidence {found['level']}: {LEVELS[found['level']]}" if found["level"] else ""
    yield f"{found['table']}: {found['quoted'] or ', '.join(found['records'])}{level}"
    if found["rows"]:
        columns = list(found["rows"][0]["ours"])
        digits = 1 if "AP" in columns else 3
        theirs = "    paper, COCO" if "AP" in columns else "    paper"
        seeds = max(row["seeds"] for row in found["rows"])
        table = [[f"mean ± sd of {seeds} seeds" if seeds > 1 else "", *columns]]
        for row in found["rows"]:
            if found["quoted"]:
                table.append([row["name"], *(number(row["paper"].get(column)) for column in columns)])
                continue
            table.append([row["name"], *(_shown(row["ours"][column], digits, row["sd"][column]) for column in columns)])
            if row["paper"]:
                table.append([theirs, *(number(row["paper"].get(column)) for column in columns)])
        widths = [max(len(line[column]) for line in table) for column in range(len(table[0]))]
        for line in table:
            cells = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            yield "  ".join([line[0].ljust(widths[0]), *cells]).rstrip()
    for entry in found["claims"]:
        yield from claim_lines(entry)


def _row(
    shown: Shown, columns: Mapping[str, str], records: Sequence[Record], papers: Mapping[str, Claim]
) -> dict[str, Any]:
    values: dict[str, list[float]] = {heading: [] for heading in columns}
    seeds = 0
    for record in records:
        if not record.id.startswith(f"{shown.record}-"):
            continue
        row, most = _below(record.metrics, shown.key), 0
        if row is None:
            continue
        for heading, key in columns.items():
            found = _below(row, key)
            # Joint records hold all seeds, the others one each.
            numbers = found["seeds"] if isinstance(found, Mapping) else [found]
            values[heading] += [value for value in numbers if value is not None]
            most = max(most, len(numbers))
        seeds += most
    ours = {metric: statistics.fmean(numbers) if numbers else None for metric, numbers in values.items()}
    spread = {metric: statistics.stdev(numbers) if len(numbers) > 1 else None for metric, numbers in values.items()}
    paper = dict(papers[shown.paper].values) if shown.paper else {}
    return {"name": shown.name, "seeds": seeds, "ours": ours, "sd": spread, "paper": paper}


def _claims(experiment: Experiment, records: Sequence[Record]) -> list[dict[str, Any]]:
    chosen = [claim for claim in read_claims() if claim.id.startswith(experiment.claims or ("none",))]
    return [entry for entry in entries(records, chosen) if entry["level"]]


def _below(value: Any, key: str) -> Any:
    """A value by dotted key; numbers index lists, and what is not there is None."""
    for name in key.split("."):
        if isinstance(value, list):
            value = value[int(name)]
        else:
            value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _shown(value: float | None, digits: int, spread: float | None) -> str:
    if value is not None and value >= 100 and value == int(value):  # a number of objects
        return str(int(value))
    if value is None:
        return "-"
    return f"{value:.{digits}f}" + ("" if spread is None else f" ±{spread:.{digits}f}")
