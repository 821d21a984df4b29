"""Records: round trip, clear errors, levels kept apart, and pages that name what exists."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from cpm_lib import ledger
from cpm_lib.claims import read_claims
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record

ROOT = Path(__file__).resolve().parent.parent
CALL = re.compile(r"\bledger\.(?:get|read|table)\(\s*(?:(?P<list>\[[^\]]*\])|(?P<one>[\"'][^\"']+[\"']))")
TEXT = re.compile(r"[\"']([^\"'\n]+)[\"']")


def sample(id: str = "cpm-quick", level: str = "E1", ap: float = 41.26) -> Record:
    rows = {"stage1": {"AP": ap - 2, "AP90": None}, "stage3": {"AP": ap, "AP90": 12.04}}
    gain = {"difference": 2.04, "low": 1.26, "high": 2.84, "sd": 0.4, "samples": 1000}
    return Record(id, "Three stages beat one.", level, metrics={"AP": ap, "rows": rows}, differences={"gain": gain})


def test_round_trip(tmp_path: Path) -> None:
    path = ledger.write(sample(), tmp_path)
    assert path == tmp_path / "cpm-quick.json"
    assert ledger.read("cpm-quick", tmp_path) == sample()
    text = path.read_text()
    assert list(json.loads(text)) == sorted(json.loads(text)) and text.endswith("}\n")
    ledger.write(sample("another"), tmp_path)
    assert [record.id for record in ledger.read_all(tmp_path)] == ["another", "cpm-quick"]


def test_make_fills_in_what_is_known(tmp_path: Path) -> None:
    dataset = SimpleNamespace(name="shapes:smoke:val", fingerprint=lambda: "ab12")
    record = ledger.make("x", "y", "E1", config=Config(preset="grid", profile="quick"), dataset=dataset, seed=3)
    assert (record.preset, record.profile, record.data, record.data_fingerprint) == (
        "grid",
        "quick",
        dataset.name,
        "ab12",
    )
    assert record.seed == 3 and record.results_version == ledger.RESULTS_VERSION
    assert Config.from_dict(record.config).preset == "grid"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", record.created)
    assert set(record.git) == {"sha", "dirty"}


def test_get_by_dotted_key(tmp_path: Path) -> None:
    ledger.write(sample(), tmp_path)
    assert ledger.get("cpm-quick", "metrics.rows.stage3.AP", tmp_path) == 41.26
    assert ledger.get("cpm-quick", "metrics.rows.stage1.AP90", tmp_path) is None


@pytest.mark.parametrize(
    ("id", "key", "words"),
    [
        ("cpm-quik", "metrics.AP", "did you mean 'cpm-quick'"),
        ("cpm-quick", "metric.AP", "did you mean 'metrics'"),
        ("cpm-quick", "metrics.rows.stage2.AP", "stage2.*metrics.rows.*did you mean"),
        ("cpm-quick", "metrics.AP.x", "nothing lies below"),
    ],
)
def test_missing_names_are_suggested(tmp_path: Path, id: str, key: str, words: str) -> None:
    ledger.write(sample(), tmp_path)
    with pytest.raises(UserError, match=words):
        ledger.get(id, key, tmp_path)


def test_bad_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="level 'E9'"):
        sample(level="E9")
    with pytest.raises(UserError, match="id"):
        sample("Not An Id")
    with pytest.raises(UserError, match="finite"):
        ledger.write(sample(ap=float("nan")), tmp_path)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="holds no record"):
        ledger.read("a", tmp_path)
    (tmp_path / "a.json").write_text('{"id": "a"')
    with pytest.raises(UserError, match=r"a\.json: not a result record"):
        ledger.read("a", tmp_path)
    ledger.write(sample("b"), tmp_path).rename(tmp_path / "a.json")
    with pytest.raises(UserError, match="holds the record 'b'"):
        ledger.read("a", tmp_path)


def test_table(tmp_path: Path) -> None:
    ledger.write(sample(), tmp_path)
    ledger.write(sample("grid", ap=38.0), tmp_path)
    result = ledger.table(["cpm-quick", "grid"], {"AP": "metrics.AP", "gain": "differences.gain"}, folder=tmp_path)
    assert result.rows == [["cpm-quick", "41.3", "+2.0 [1.3, 2.8]"], ["grid", "38.0", "+2.0 [1.3, 2.8]"]]
    assert "E1: shapes" in result.caption
    assert str(result).splitlines()[1] == "cpm-quick  41.3  +2.0 [1.3, 2.8]"
    assert "<td>41.3</td>" in result._repr_html_()
    assert "| cpm-quick | 41.3 |" in result._repr_markdown_()


def test_table_rows_from_one_record(tmp_path: Path) -> None:
    ledger.write(sample(), tmp_path)
    ids = ["cpm-quick:metrics.rows.stage1", "cpm-quick:metrics.rows.stage3"]
    result = ledger.table(ids, ["AP", "AP90", "level"], names=["1 & 2", "3"], digits=2, folder=tmp_path)
    assert result.rows == [["1 & 2", "39.26", "–", "E1"], ["3", "41.26", "12.04", "E1"]]
    assert "<td>1 &amp; 2</td>" in result._repr_html_()


def test_levels_are_never_mixed() -> None:
    with pytest.raises(UserError, match=r"one level of evidence.*photos E2"):
        ledger.table([sample(), sample("photos", "E2")], ["metrics.AP"])
    with pytest.raises(UserError, match="no record"):
        ledger.table([], ["metrics.AP"])
    with pytest.raises(UserError, match="one name each"):
        ledger.table([sample()], ["metrics.AP"], names=[])


def test_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = tmp_path / "data" / "results"
    (tmp_path / "notebooks").mkdir()
    results.mkdir(parents=True)
    monkeypatch.delenv("CPM_RESULTS", raising=False)
    monkeypatch.chdir(tmp_path / "notebooks")
    assert ledger.results_folder() == results
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path / "elsewhere"))
    assert ledger.results_folder() == tmp_path / "elsewhere"


def pages() -> dict[str, str]:
    """Text of every page by name; of notebooks the cell sources."""
    found = {}
    for path in [*ROOT.glob("book/**/*.md"), *ROOT.glob("notebooks/*.ipynb")]:
        if "_build" in path.parts:
            continue
        text = path.read_text()
        if path.suffix == ".ipynb":
            text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
        found[str(path.relative_to(ROOT))] = text
    return found


def called(text: str) -> set[str]:
    """Record ids in calls of the ledger."""
    return {
        name.partition(":")[0] for call in CALL.finditer(text) for name in TEXT.findall(call["list"] or call["one"])
    }


def test_called_finds_every_form() -> None:
    text = """ledger.get("a", "metrics.AP"); ledger.table(['b:metrics.x',\n "c"], ["AP"]); ledger.read( "d")"""
    assert called(text) == {"a", "b", "c", "d"}


def test_pages_and_records_agree() -> None:
    """A page names only records that exist, and every record is named by a page or judges a claim of the register."""
    texts = pages()
    ids = {path.stem for path in (ROOT / "data" / "results").glob("*.json")}
    missing = {f"{page}: {id}" for page, text in texts.items() for id in called(text) - ids}
    assert not missing, f"pages read records that do not exist: {sorted(missing)}"
    literals = {name.partition(":")[0] for text in texts.values() for name in TEXT.findall(text)}
    claims = read_claims(ROOT / "data" / "claims.json")
    unread = ids - literals - {name.partition(":")[0] for claim in claims for name in claim.records}
    assert not unread, f"records that no page reads and no claim names: {sorted(unread)}"


def test_records_in_the_repository_are_readable() -> None:
    for record in ledger.read_all(ROOT / "data" / "results"):
        assert record.results_version <= ledger.RESULTS_VERSION, record.id
