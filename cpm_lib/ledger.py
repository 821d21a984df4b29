"""Result records: every number a page shows is read from `data/results/<id>.json`, never typed in."""

from __future__ import annotations

import dataclasses
import datetime
import html
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cpm_lib.config import Config
from cpm_lib.environment import git_state
from cpm_lib.errors import UserError
from cpm_lib.files import write_atomic
from cpm_lib.typed import nearest

RESULTS_VERSION = 1
"""Raised whenever a change of the code alters numbers, so that older records can be told apart."""

LEVELS: Mapping[str, str] = {
    "E0": "equation checked, or time of untrained networks",
    "E1": "shapes",
    "E2": "real photographs",
    "E3": "COCO, short schedule",
    "E4": "COCO, the paper's schedule",
}
_ID = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True)
class Record:
    """One evaluation and everything needed to make it again.

    Attributes:
        id: file name without ending; small letters, digits and ``._-``.
        claim: the sentence this record supports or refutes.
        level: of evidence, E0..E4 (`LEVELS`).
        data: source text, e.g. ``shapes:quick:val``; data_fingerprint: sha256 of it.
        inputs: what else decides the numbers: name -> digest, e.g. of the training data and of the starting weights.
        device: "cpu" or the GPU's name; wall_s, cpu_s: seconds.
        metrics: nested dict; AP values in 0..100.
        differences: name -> paired difference as `bootstrap_difference` returns it.
        interval: as `bootstrap_ap` returns it.
        created: ISO date; git: {"sha", "dirty"} of the code.
    """

    id: str
    claim: str
    level: str
    preset: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    profile: str = ""
    data: str = ""
    data_fingerprint: str = ""
    inputs: dict[str, str] = field(default_factory=dict)
    seed: int | None = None
    results_version: int = RESULTS_VERSION
    torch_version: str = ""
    device: str = "cpu"
    wall_s: float | None = None
    cpu_s: float | None = None
    metrics: dict[str, Any] = field(default_factory=dict)
    differences: dict[str, Any] = field(default_factory=dict)
    interval: dict[str, Any] | None = None
    created: str = ""
    git: dict[str, Any] = field(default_factory=dict)
    notes: str = ""

    def __post_init__(self) -> None:
        check_id(self.id)
        if self.level not in LEVELS:
            raise UserError(f"record '{self.id}': level '{self.level}'{nearest(self.level, list(LEVELS))}")


def check_id(id: str) -> None:
    """
    Raises:
        UserError: no record can have this id.
    """
    if not _ID.fullmatch(id):
        raise UserError(f"record id '{id}': use small letters, digits and ._- only")


def make(
    id: str, claim: str, level: str, *, config: Config | None = None, dataset: Any = None, **fields: Any
) -> Record:
    """A record with preset, profile and config from `config`, data and fingerprint from `dataset`, and versions,
    date and git state of this moment. `fields` are further fields of `Record` and win."""
    known: dict[str, Any] = {
        "torch_version": str(torch.__version__),
        "created": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "git": git_state(),
    }
    if config is not None:
        known |= {
            "preset": config.preset,
            "profile": config.profile,
            "config": json.loads(json.dumps(config.to_dict())),
        }
    if dataset is not None:
        known |= {"data": dataset.name, "data_fingerprint": dataset.fingerprint()}
    return Record(id=id, claim=claim, level=level, **(known | fields))


def results_folder() -> Path:
    """Where records live: ``CPM_RESULTS``, else `find_data` of ``results``."""
    wish = os.environ.get("CPM_RESULTS")
    return Path(wish) if wish else find_data("results")


def find_data(name: str) -> Path:
    """``data/<name>`` of the nearest parent of the working directory that has it, else that of the repository the
    package is in."""
    here = Path.cwd()
    for parent in (here, *here.parents):
        if (parent / "data" / name).exists():
            return parent / "data" / name
    return Path(__file__).resolve().parent.parent / "data" / name


def write(record: Record, folder: str | Path | None = None) -> Path:
    """Write ``<folder>/<id>.json``, sorted and indented, replacing an older record of the same id.

    Raises:
        UserError: a value JSON cannot hold (NaN, a tensor), or the folder cannot be written.
    """
    try:
        text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise UserError(f"record '{record.id}': {error}; give plain finite numbers, None for undefined") from error
    return write_atomic(_folder(folder) / f"{record.id}.json", text + "\n")


def read(id: str, folder: str | Path | None = None) -> Record:
    """The record of this id.

    Raises:
        UserError: there is none (the nearest id is suggested), or the file is not a record.
    """
    place = _folder(folder)
    path = place / f"{id}.json"
    if not path.is_file():
        ids = sorted(file.stem for file in place.glob("*.json"))
        hint = nearest(id, ids) if ids else "; the folder holds no record"
        raise UserError(f"no record '{id}' in {place}{hint}")
    try:
        record = Record(**json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not a result record ({error}); make it again") from error
    if record.id != id:
        raise UserError(f"{path}: holds the record '{record.id}'; rename the file or make it again")
    return record


def read_all(folder: str | Path | None = None) -> list[Record]:
    """All records, sorted by id."""
    place = _folder(folder)
    return [read(file.stem, place) for file in sorted(place.glob("*.json"))]


def read_current(folder: str | Path | None = None) -> list[Record]:
    """All records that today's code would make alike, sorted by id: those of its `RESULTS_VERSION`."""
    return [record for record in read_all(folder) if record.results_version == RESULTS_VERSION]


def get(id: str, key: str, folder: str | Path | None = None) -> Any:
    """One value by dotted key, e.g. ``get("cpm-quick", "metrics.AP")``; numbers index lists.

    Raises:
        UserError: no such record or key; the nearest is suggested.
    """
    return _value(dataclasses.asdict(read(id, folder)), key, id)


@dataclass(frozen=True)
class Table:
    """A table that renders itself in notebooks (HTML), in the book (Markdown) and in a terminal."""

    header: list[str]
    rows: list[list[str]]
    caption: str = ""

    def _repr_html_(self) -> str:
        def line(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        body = "".join(line(row, "td") for row in self.rows)
        caption = f"<caption>{html.escape(self.caption)}</caption>" if self.caption else ""
        return f"<table>{caption}<thead>{line(self.header, 'th')}</thead><tbody>{body}</tbody></table>"

    def _repr_markdown_(self) -> str:
        lines = [self.header, [":--"] + ["--:"] * (len(self.header) - 1), *self.rows]
        table = "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
        return f"{table}\n\n{self.caption}\n" if self.caption else table + "\n"

    def __str__(self) -> str:
        return self.text()

    def text(self) -> str:
        """Columns aligned with spaces."""
        widths = [max(len(line[i]) for line in (self.header, *self.rows)) for i in range(len(self.header))]
        lines = []
        for line in (self.header, *self.rows):
            padded = [cell.rjust(width) for cell, width in zip(line, widths, strict=True)]
            lines.append("  ".join([line[0].ljust(widths[0]), *padded[1:]]).rstrip())
        return "\n".join([*lines, self.caption] if self.caption else lines)


def table(
    records: Sequence[str | Record],
    columns: Sequence[str] | Mapping[str, str],
    *,
    names: Sequence[str] | None = None,
    digits: int = 1,
    folder: str | Path | None = None,
) -> Table:
    """One row per record.

    Args:
        records: records or ids. ``"id:path"`` starts at a part of the record, so one record can give several rows,
            e.g. ``table(["cpm-quick:metrics.stage1", "cpm-quick:metrics.stage3"], ["AP", "AP90"])``.
        columns: dotted keys, or header -> dotted key. A key not below ``path`` is looked up in the whole record.
        names: first cell of each row; default: the id as given.
        digits: decimals of numbers. A paired difference or interval shows as ``+0.8 [0.3, 1.2]``.

    Raises:
        UserError: missing record or key, no record, or records of different levels of evidence.
    """
    found: list[tuple[Record, str]] = []
    for item in records:
        id, _, path = item.partition(":") if isinstance(item, str) else (item.id, "", "")
        found.append((item if isinstance(item, Record) else read(id, folder), path))
    levels = sorted({record.level for record, _ in found})
    if len(levels) != 1:
        given = ", ".join(f"{record.id} {record.level}" for record, _ in found) or "no record"
        raise UserError(f"a table needs records of one level of evidence, got {given}; make one table per level")
    labels = list(names) if names is not None else [f"{r.id}:{path}" if path else r.id for r, path in found]
    if len(labels) != len(found):
        raise UserError(f"table: {len(labels)} names for {len(found)} records; give one name each")
    keys = dict(columns) if isinstance(columns, Mapping) else {key: key for key in columns}
    rows = []
    for (record, path), label in zip(found, labels, strict=True):
        whole = dataclasses.asdict(record)
        part = _value(whole, path, record.id) if path else whole
        cells = []
        for key in keys.values():
            inside = isinstance(part, Mapping) and key.partition(".")[0] in part
            cells.append(_show(_value(part if inside else whole, key, record.id), digits))
        rows.append([label, *cells])
    return Table(["", *keys], rows, f"Evidence {levels[0]}: {LEVELS[levels[0]]}")


def _folder(folder: str | Path | None) -> Path:
    return results_folder() if folder is None else Path(folder)


def _value(value: Any, key: str, id: str) -> Any:
    """Walk a dotted key through dicts and lists."""
    walked: list[str] = []
    for name in key.split("."):
        if isinstance(value, Mapping):
            choices = [str(choice) for choice in value]
        else:
            choices = [str(i) for i in range(len(value))] if isinstance(value, list) else []
        if name not in choices:
            where = f" in '{'.'.join(walked)}'" if walked else ""
            hint = nearest(name, choices) if choices else "; nothing lies below it"
            raise UserError(f"record '{id}' has no key '{name}'{where}{hint}")
        value = value[name] if isinstance(value, Mapping) else value[int(name)]
        walked.append(name)
    return value


def _show(value: Any, digits: int) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    if isinstance(value, Mapping) and {"low", "high"} <= set(value):
        if value["low"] is None:
            return "–"
        signed = "difference" in value
        centre = f"{value['difference' if signed else 'ap']:{'+' if signed else ''}.{digits}f}"
        return f"{centre} [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_show(item, digits) for item in value)
    return str(value)
