"""The register of differences between paper and code: complete entries that lead to a switch and to evidence."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cpm_lib.claims import read_claims
from cpm_lib.config import Config, Conventions
from cpm_lib.discrepancies import (
    WEIGHTS,
    contradiction_table,
    count_table,
    read_discrepancies,
    register_table,
    switch_table,
)
from cpm_lib.errors import UserError

ENTRIES: list[dict[str, Any]] = json.loads(
    (Path(__file__).resolve().parents[1] / "data" / "discrepancies.json").read_text()
)
REQUIRED = {"id", "topic", "paper", "code", "section", "facts", "our_default", "matters"}
OPTIONAL = {"switch", "evidence"}
SECTION = r"(Sec\. \d(\.\d)*|Eq\. \d( and \d)?|Tables? \d(, \d)*( and \d)?|Fig\. \d)"
FACTS = r"(\d+(\.\d+)?(, \d+(\.\d+)?)*)?((?(1); )A8(\.\d+)?)?"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry["id"])
def test_entry(entry: dict[str, Any], root: Path) -> None:
    assert set(entry) == REQUIRED | OPTIONAL
    assert all(isinstance(entry[key], str) and entry[key].strip() == entry[key] != "" for key in REQUIRED)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", entry["id"])
    assert entry["section"] == "none" or re.fullmatch(rf"{SECTION}(, {SECTION})*", entry["section"])
    assert re.fullmatch(FACTS, entry["facts"])
    assert re.match(r"(high|moderate|low|unknown): ", entry["matters"])
    assert all(entry[key].endswith(".") for key in ("paper", "code", "our_default"))
    if entry["switch"] is not None:
        value: Any = Config()
        for part in entry["switch"].split("."):
            assert part in {field.name for field in dataclasses.fields(value)}, entry["switch"]
            value = getattr(value, part)
        assert not dataclasses.is_dataclass(value), "a switch is a single setting"
    if entry["evidence"] is not None:
        file, _, test = entry["evidence"].partition("::")
        assert (root / file).is_file(), file
        assert not test or f"def {test}(" in (root / file).read_text(), entry["evidence"]


def test_ids_and_switches_are_unique() -> None:
    for key in ("id", "topic", "switch"):
        values = [entry[key] for entry in ENTRIES if entry[key] is not None]
        assert len(values) == len(set(values)), key


def test_every_convention_is_in_the_register() -> None:
    switches = {entry["switch"] for entry in ENTRIES}
    assert {f"conventions.{field.name}" for field in dataclasses.fields(Conventions)} <= switches


def test_every_difference_of_the_survey_is_in_the_register() -> None:
    """The fifteen numbered findings in the authors' repository."""
    numbers = {int(number) for entry in ENTRIES for number in re.findall(r"A8\.(\d+)", entry["facts"])}
    assert numbers == set(range(1, 16))


def test_tables_hold_every_entry() -> None:
    read = read_discrepancies()
    assert [dataclasses.asdict(entry) for entry in read] == ENTRIES
    rows = [row for weight in WEIGHTS for row in register_table(weight).rows]
    assert sorted(row[0].partition("\n")[0] for row in rows) == sorted(entry.topic for entry in read)
    assert all(row[4][0].isupper() or not row[4][0].isalpha() for row in rows)
    clipping = next(row for row in rows if row[0].startswith("Clipping"))
    assert clipping[3].endswith("`conventions.clip_boxes`")


def test_counts() -> None:
    rows = {row[0]: list(map(int, row[1:])) for row in count_table().rows}
    assert rows["all"][0] == len(ENTRIES) == sum(rows[weight][0] for weight in WEIGHTS)
    assert rows["all"][2] == sum(entry["switch"] is not None for entry in ENTRIES)


def test_every_switch_is_shown_and_explained() -> None:
    rows = {row[0].strip("`"): row for row in switch_table().rows}
    assert set(rows) == {field.name for field in dataclasses.fields(Conventions)}
    assert rows["rois_at_test"][1:3] == ["`96`", "`None`"]
    assert all(len(row[3]) > 30 and "facts" not in row[3] and " ." not in row[3] for row in rows.values())


def test_contradictions_of_the_paper_with_itself() -> None:
    internal = [claim for claim in read_claims() if claim.kind == "internal"]
    rows = contradiction_table().rows
    assert [row[0] for row in rows] == [claim.source for claim in internal]
    assert any("“our best model improve" in row[1] for row in rows)


def test_a_broken_register_is_named(tmp_path: Path) -> None:
    path = tmp_path / "discrepancies.json"
    with pytest.raises(UserError, match="not a readable register"):
        read_discrepancies(path)
    path.write_text(json.dumps([{"id": "x", "topics": "y"}]))
    with pytest.raises(UserError, match=r"'x', topics.*did you mean 'topic'"):
        read_discrepancies(path)
    path.write_text(json.dumps([{"id": "x", "topic": "y"}]))
    with pytest.raises(UserError, match="'x', paper: is missing"):
        read_discrepancies(path)
