"""From the paper to the code: no dead ends, and every kind of dead end is noticed."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path

import pytest

from cpm_lib import ledger
from cpm_lib.ablation.coverage import (
    PLACES,
    Place,
    command_of,
    coverage_table,
    dead_ends,
    places_of,
    read_coverage,
    records_of,
    remake_table,
)
from cpm_lib.claims import read_claims
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record


@pytest.fixture(scope="module")
def places(root: Path) -> list[Place]:
    return read_coverage(root / "data/coverage.json")


def test_no_dead_ends(places: list[Place], root: Path) -> None:
    faults = dead_ends(places, root)
    assert not faults, "\n".join(faults)


def test_every_place_has_a_claim_and_every_claim_a_place(places: list[Place]) -> None:
    found = {place for claim in read_claims() for place in places_of(claim.source) if not place.startswith("Sec.")}
    assert found == set(PLACES) == {place.place for place in places}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"place": "Table 9"}, "Table 9: is no equation, table or figure of the paper"),
        (
            {"functions": ("cpm_lib.model.fused_score.fuze",)},
            "Eq. 4: cpm_lib.model.fused_score.fuze cannot be imported",
        ),
        ({"functions": ()}, "Eq. 4: names no functions"),
        ({"notebooks": ("77_none",)}, "Eq. 4: notebook 77_none does not exist"),
        ({"tests": ("tests/model/test_fused_score.py::test_none",)}, "Eq. 4: test .*test_none does not exist"),
        ({"tests": ("tests/none.py",)}, "Eq. 4: test tests/none.py does not exist"),
        ({"records": ("none",)}, "Eq. 4: record none does not exist"),
        ({"experiments": ("table9",)}, "Eq. 4: experiment table9 does not exist"),
    ],
)
def test_dead_ends_are_noticed(change: dict[str, object], words: str, places: list[Place], root: Path) -> None:
    place = next(place for place in places if place.place == "Eq. 4")
    changed = [dataclasses.replace(place, **change)]  # type: ignore[arg-type]
    found = "\n".join(dead_ends(changed, root))
    assert re.search(words, found), found
    assert "Eq. 1: has 0 entries instead of one" in found


def test_a_chapter_that_does_not_mention_the_place(tmp_path: Path, places: list[Place]) -> None:
    (tmp_path / "notebooks").mkdir()
    place = dataclasses.replace(places[0], place="Table 4", notebooks=("a",))
    for text, missing in (("Table 5", True), ("Tables 1, 4 and 6", False), ("see Table 4.", False), ("Table 41", True)):
        (tmp_path / "notebooks/a.ipynb").write_text(text)
        assert ("Table 4: notebook a does not mention it" in dead_ends([place], tmp_path)) == missing, text


def test_a_table_without_record_needs_a_reason(places: list[Place], root: Path) -> None:
    table = next(place for place in places if place.open)
    silent = dataclasses.replace(table, open="", experiments=(), records=())
    assert any("does not say why" in fault for fault in dead_ends([silent], root))


def test_sources() -> None:
    assert places_of("Tables 1, 4 and 6, Sec. 4.1") == {"Table 1", "Table 4", "Table 6", "Sec. 4.1"}
    assert places_of("Abstract, Eq. 3") == {"Eq. 3"}
    assert places_of("Fig. 8, Sec. 1, Sec. 4.2.1") == {"Fig. 8", "Sec. 1", "Sec. 4.2.1"}


def test_records_of_a_place() -> None:
    place = Place("Table 4", experiments=("table4",), records=("mine",))
    ids = ["diagnosis-quick", "mine", "paired-quick", "paired-quick-s1", "speed-quick"]
    assert records_of(place, [], ids) == ["mine", "paired-quick", "paired-quick-s1"]


def test_the_table_names_everything(places: list[Place]) -> None:
    rows = coverage_table(places).rows
    assert [row[0].splitlines()[0] for row in rows] == [place.place for place in places]
    by_place = {row[0].splitlines()[0]: row for row in rows}
    assert "`model.fused_score.fuse`" in by_place["Eq. 4"][1]
    assert "`golden/e_fused_score.npz`" in by_place["Eq. 4"][2]
    assert "[00_quickstart](00_quickstart.ipynb)" in by_place["Eq. 4"][3]
    assert "1 checked" in by_place["Eq. 4"][3]
    assert "COCO" in by_place["Table 7"][3]


def test_every_record_has_a_command(root: Path) -> None:
    records = ledger.read_all(root / "data/results")
    assert not [record.id for record in records if not command_of(record)]
    assert len(remake_table(records).rows) == len(records)


def test_commands() -> None:
    joint = Record("joint-table1-quick", "", "E1", metrics={"seeds": [0, 1]})
    assert command_of(joint) == "cpm ablate table1 --seeds 0,1"
    assert command_of(Record("paired-quick-s2", "", "E1", seed=2)) == "cpm ablate table4 --seeds 2"
    gpu = Record("paired-gpu-bccd-s1", "", "E2", seed=1, data="voc:data/bccd,val")
    assert command_of(gpu) == "cpm ablate table4 --seeds 1 --profile gpu --data voc:data/bccd"
    assert command_of(Record("speed-quick", "", "E0", profile="paper")) == "cpm ablate table8 --seeds 0"
    command = "cpm bench inference --sweep rois --record bench-x"
    assert command_of(Record("bench-x", "", "E0", metrics={"command": command})) == command
    assert command_of(Record("mystery", "", "E1")) == ""


def test_a_mapping_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="restore it"):
        read_coverage(tmp_path / "none.json")
    path = tmp_path / "coverage.json"
    path.write_text(json.dumps([{"place": "Eq. 1", "function": []}]))
    with pytest.raises(UserError, match=r"function.*did you mean 'functions'"):
        read_coverage(path)
