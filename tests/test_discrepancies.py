"""The register of differences between paper and code: complete entries that lead to a switch and to evidence."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest

from cpm_lib.config import Config, Conventions

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
