"""The claims register: complete, well formed, true to the paper's arithmetic, and honest about what was run."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import ledger, presets
from cpm_lib.ablation import write_statuses
from cpm_lib.claims import KINDS, STATUSES, Claim, Tolerance, count_by_status, read_claims
from cpm_lib.config import Config
from cpm_lib.errors import UserError
from cpm_lib.model import build_model
from cpm_lib.model.grid_branch import POOL_SIZE
from cpm_lib.model.iou_scoring import iou_loss

ROOT = Path(__file__).resolve().parents[1]
REGISTER: dict[str, Any] = json.loads((ROOT / "data" / "claims.json").read_text())
CLAIMS: dict[str, Claim] = {claim.id: claim for claim in read_claims(ROOT / "data" / "claims.json")}
DISCREPANCIES = {entry["id"] for entry in json.loads((ROOT / "data" / "discrepancies.json").read_text())}


def of_kind(*kinds: str) -> list[Claim]:
    return [claim for claim in CLAIMS.values() if claim.kind in kinds]


def test_the_header_explains_every_word() -> None:
    assert list(REGISTER) == ["about", "kinds", "statuses", "tolerance", "claims"]
    assert tuple(REGISTER["kinds"]) == KINDS and tuple(REGISTER["statuses"]) == STATUSES
    assert list(REGISTER["tolerance"]) == [field.name for field in dataclasses.fields(Tolerance)]
    written = json.dumps(REGISTER, indent=2, ensure_ascii=False) + "\n"
    assert (ROOT / "data" / "claims.json").read_text() == written, "the form in which code writes statuses back"


def test_entries_have_one_order_of_fields_and_no_stray_spaces() -> None:
    order = ["id", "source", "kind", "quote", "form", "values", "tolerance", "records", "status", "note"]
    for entry in REGISTER["claims"]:
        assert list(entry) == order, entry["id"]
        texts = [value for value in entry.values() if isinstance(value, str)]
        assert all(text == text.strip() and "  " not in text for text in texts), entry["id"]
    forms = [(claim.form, *claim.values) for claim in CLAIMS.values() if claim.kind != "setting"]
    assert len(forms) == len(set(forms)), "two claims say the same"


def test_every_figure_equation_and_part_of_the_text_has_a_claim() -> None:
    sources = ", ".join(claim.source for claim in CLAIMS.values())
    for place in ("Fig.", "Eq."):
        assert set(re.findall(rf"{re.escape(place)} (\d)", sources)) >= set("1234567")
    assert "Fig. 8" in sources and "Abstract" in sources
    sections = ["1", "2.1", "2.2", "3.1", "3.2", "3.3.1", "3.3.2", "3.4.1", "3.4.2", "3.4.3", "4.1", "4.1.1"]
    for section in (*sections, "4.1.2", "4.1.3", "4.2", "4.2.1", "4.2.2", "5"):
        assert re.search(rf"Sec\. {re.escape(section)}(,|$)", sources), section


def test_what_judges_a_claim_exists() -> None:
    for claim in CLAIMS.values():
        levels = set()
        for name in claim.records:
            if claim.kind in ("equation", "setting"):
                file, _, test = name.partition("::")
                assert (ROOT / file).is_file(), f"{claim.id}: {file}"
                assert not test or f"def {test}(" in (ROOT / file).read_text(), f"{claim.id}: {name}"
                continue
            id, _, key = name.partition(":")
            levels.add(ledger.read(id, ROOT / "data" / "results").level)
            assert not key or ledger.get(id, key, ROOT / "data" / "results") is not None, f"{claim.id}: {name}"
        assert len(levels) <= 1, f"{claim.id}: levels of evidence are never mixed"
        assert all(level >= (claim.tolerance.level or "") for level in levels), claim.id


def test_verdicts_are_those_of_the_committed_records(tmp_path: Path) -> None:
    copy = tmp_path / "claims.json"
    copy.write_bytes((ROOT / "data" / "claims.json").read_bytes())
    changed = write_statuses(copy, ledger.read_all(ROOT / "data" / "results"))
    assert changed == 0, "cpm ablate report --update writes them anew"


def test_notes_refer_to_what_exists() -> None:
    for claim in CLAIMS.values():
        for name in re.findall(r"\b(?:internal|table\d|sec[\d-]+|fig\d)\.[a-z][a-z0-9-]*", claim.note):
            assert name in CLAIMS, f"{claim.id}: {name}"
        assert set(re.findall(r"discrepancy ([a-z0-9-]+)", claim.note)) <= DISCREPANCIES, claim.id
        known = [name for name in re.findall(r"\b(?:table\d|cascade|grid|cpm)-[a-z0-9.-]*[a-z0-9]", claim.form)]
        assert set(known) <= set(presets.PRESETS), claim.id


def test_settings_are_those_of_the_paper() -> None:
    for claim in of_kind("setting"):
        for key, value in claim.values.items():
            if "." not in key:
                continue
            found: Any = presets.get(claim.form.removeprefix("configuration of "))
            for name in key.split("."):
                found = getattr(found, name)
            assert found == value, f"{claim.id}: {key}"
    assert Config().conventions.rsm_positives == "output", "fig4.rsm-samples"


def test_sizes_named_in_the_text() -> None:
    with torch.device("meta"):
        model: Any = build_model(presets.get("cpm"), 81)
    branch, ism = model.cascade.stages[-1], model.iou_scoring
    layers = [layer for layer in ism.modules() if isinstance(layer, torch.nn.Linear)]
    channels = presets.get("cpm").grid.points ** 2 * presets.get("cpm").grid.channels_per_point
    assert CLAIMS["fig4.ism-architecture"].values == {
        "feature-side": (layers[0].in_features / channels) ** 0.5,
        "layers": len(layers),
        "outputs": layers[-1].out_features,
    }
    assert CLAIMS["sec3-4-1.feature-sizes"].values == {
        "classification": model.classification.classifier.pool.output_size,
        "grid": model.cascade.pool.output_size,
        "heatmap": branch.window,
    }
    assert model.cascade.pool.output_size == POOL_SIZE


def test_equation_7_by_hand() -> None:
    logits, targets = torch.tensor([[0.5, 0.5], [-1.0, 3.0]]), torch.tensor([[0.2, 0.8], [0.0, 1.0]])
    # Differences 0.3, -0.3, -1, 2.
    assert iou_loss(logits, targets, "l1").item() == pytest.approx((0.3 + 0.3 + 1 + 2) / 4)
    assert iou_loss(logits, targets, "l2").item() == pytest.approx(0.5 * (0.09 + 0.09 + 1 + 4) / 4)
    assert iou_loss(logits, targets, "smooth_l1").item() == pytest.approx((0.045 + 0.045 + 0.5 + 1.5) / 4)


def test_counts_and_default_place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    claims = read_claims()
    counts = count_by_status(claims)
    assert [claim.id for claim in claims] == list(CLAIMS)
    assert tuple(counts) == STATUSES and sum(counts.values()) == len(claims)
    assert counts["confirmed"] == len(of_kind("internal"))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "claims.json").write_text('{"claims": []}')
    assert read_claims() == [], "the nearest register wins"
    assert count_by_status([])["not run"] == 0


GOOD: dict[str, Any] = {
    "id": "table1.gain", "source": "Table 1", "kind": "difference", "quote": "", "form": "AP(a) - AP(b) > 0",
    "values": {"AP": 0.8, "APL": None}, "tolerance": {"level": "E1", "sign": "+", "interval": "images"},
    "records": [], "status": "not run", "note": "",
}  # fmt: skip


def written(tmp_path: Path, *entries: Any) -> Path:
    path = tmp_path / "claims.json"
    path.write_text(json.dumps({"claims": entries}))
    return path


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"id": "Table1"}, "id: use <place>.<name>"),
        ({"id": 3}, "claim 1 is not an object with an id"),
        ({"source": "page 4"}, "source: 'page 4' is no place"),
        ({"kind": "diference"}, "kind: .*did you mean 'difference'"),
        ({"qoute": ""}, "qoute.*did you mean 'quote'"),
        ({"quote": "word " * 21}, "quote: 21 words; shorten it to 20"),
        ({"form": ""}, "form: is empty"),
        ({"values": {"AP": "0.8"}}, "values.AP: '0.8' is not of type"),
        ({"values": {"AP": float("nan")}}, "values.AP: nan is not finite"),
        ({"values": {}}, "values: are empty"),
        ({"values": [0.8]}, "values: .* is not an object"),
        ({"tolerance": {"level": "E7"}}, "tolerance.level: 'E7' is not of type"),
        ({"tolerance": {"levl": "E1"}}, "tolerance.levl.*did you mean 'level'"),
        ({"tolerance": {}}, "tolerance.level: is missing"),
        ({"tolerance": {"level": "E1", "abs": 0.5}}, "tolerance.sign: a claim of kind difference needs one"),
        ({"tolerance": {"level": "E1", "sign": "+"}}, "tolerance.interval: is missing"),
        ({"tolerance": {"level": "E1", "sign": "0", "interval": "seeds"}}, "tolerance.within: belongs to sign 0"),
        ({"kind": "absolute"}, "tolerance.sign: a claim of kind absolute has none"),
        ({"kind": "speed", "tolerance": {"level": "E4"}}, "tolerance.abs: is missing"),
        ({"kind": "internal", "status": "confirmed"}, "tolerance: a claim of kind internal is not judged"),
        ({"records": "paired-quick"}, "records: 'paired-quick' is not of type"),
        ({"status": "checked"}, "status: 'checked' does not go with kind difference"),
        ({"status": "done"}, "status: 'done' is not possible"),
        ({"status": "reproduced"}, "records: are empty, yet the status is 'reproduced'"),
        ({"kind": "equation", "records": ["tests/x.py"]}, "status: 'not run', yet tests are named"),
        ({"note": None}, "note: None is not of type str"),
    ],
)
def test_wrong_entries_are_named(tmp_path: Path, change: dict[str, Any], words: str) -> None:
    assert read_claims(written(tmp_path, GOOD))[0].values == {"AP": 0.8, "APL": None}
    with pytest.raises(UserError, match=words) as caught:
        read_claims(written(tmp_path, GOOD | change))
    assert "claims.json: " in str(caught.value) and "\n" not in str(caught.value)


def test_wrong_registers_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"'table1\.gain', id: used twice"):
        read_claims(written(tmp_path, GOOD, GOOD))
    incomplete = {key: value for key, value in GOOD.items() if key != "note"}
    with pytest.raises(UserError, match=r"'table1\.gain', note: is missing"):
        read_claims(written(tmp_path, incomplete))
    with pytest.raises(UserError, match=r"claims\.json: claim 1 is not an object"):
        read_claims(written(tmp_path, ["x"]))
    for text, words in (("[]", "has no list 'claims'"), ("{", "not JSON")):
        (tmp_path / "claims.json").write_text(text)
        with pytest.raises(UserError, match=words):
            read_claims(tmp_path / "claims.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_claims(tmp_path / "missing.json")
