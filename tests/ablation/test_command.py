"""`cpm ablate` as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpm_lib import cli
from cpm_lib.ablation.experiments import EXPERIMENTS
from cpm_lib.ablation.report import number
from cpm_lib.ablation.setting import Setting
from cpm_lib.claims import read_claims
from cpm_lib.ledger import Record


def test_a_table_beside_the_papers(
    results: Path,
    setting: Setting,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = ["--profile", "smoke", "--seeds", "0", "--runs", str(setting.runs)]
    assert cli.main(["ablate", "table4", "oracles", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Table 4: paired-smoke; evidence E1: shapes"
    paper = lines[[line.startswith("stage 2") for line in lines].index(True) + 1].split()
    assert paper == ["paper,", "COCO", "40.7", "59", "47.5", "-", "21.2", "22.6", "44", "54.6"]
    assert "Abstract: diagnosis-smoke; evidence E1: shapes" in lines
    assert cli.main(["ablate", "fig7", *options, "--json", "-"]) == 0
    printed = capsys.readouterr()
    assert "nothing was run" in printed.err and "CPM_RESULTS" in printed.err
    found = json.loads(printed.out)
    assert found[0]["name"] == "fig7" and len(found[0]["rows"]) == 11
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path))
    assert cli.main(["ablate", "fig7", *options]) == 0
    assert "nothing was run" not in capsys.readouterr().err


def test_a_quoted_table_opens_no_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "table7", "--data", "voc:none"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Table 7: quoted, not run: COCO test-dev"
    printed = [claim for claim in read_claims() if claim.id.startswith("table7.") and "AP75" in claim.values]
    printed = [claim for claim in printed if claim.kind in ("quoted", "absolute")]
    assert len(lines) == 2 + len(printed)
    for line, claim in zip(lines[2:], printed, strict=True):
        columns = ("AP", "AP50", "AP75", "APS", "APM", "APL")
        assert line.split()[-6:] == [number(claim.values[column]) for column in columns]


def test_completeness_and_proposals(
    results: Path, setting: Setting, records: dict[str, Record], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--profile", "smoke", "--seeds", "0", "--runs", str(setting.runs), "--json", "-"]
    assert cli.main(["ablate", "fig6", "proposals", *options]) == 0
    fig6, proposals = json.loads(capsys.readouterr().out)
    figures = records["diagnosis"].metrics
    rows = {row["name"]: row["ours"] for row in fig6["rows"]}
    cell = figures["last"]["score_by_occlusion"]["at_equal_iou"][1]["scores"]["rsm_scores"]
    assert list(rows["covered by 0.1 to 0.3, RSM"].values()) == [cell[key] for key in ("difference", "low", "high")]
    rows = {row["name"]: row["ours"] for row in proposals["rows"]}
    assert len(rows) == 12 and rows["objects, all"]["objects"] == figures["objects"]["all"]["objects"]
    large = figures["proposals"]["ratio_2"][3]
    assert large["size"] == "large" and rows["extended by 2, large"]["share outside"] == large["cut"]
    assert rows["proposals, all"]["at 0.7"] == figures["proposals"]["ratio_1"][0]["recall"][1]


def test_the_list(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "--list", "--profile", "smoke", "--seeds", "0", "--json", "-"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(EXPERIMENTS)
    keys = {"name", "table", "level", "profile", "rows", "records", "seeds", "cost", "status"}
    assert all(keys <= set(row) for row in rows.values())
    assert rows["table4"]["status"] == "complete" and rows["table4"]["records"] == ["paired-smoke"]
    assert rows["table4"]["seeds"] == [0] and rows["table4"]["cost"].endswith("CPU min*")
    assert rows["table2"]["status"] == "missing"
    assert cli.main(["ablate", "--list"]) == 0
    assert "trainings per seed" in capsys.readouterr().out
    assert cli.main(["ablate", "table3", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[5:8] == ["seeds", "oldest", "record"] and lines[1].startswith("table3 ")
    assert lines[2].startswith("All ") and lines[3].startswith("*: ") and len(lines) == 4


def test_the_report(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "report"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("claims")
    assert sum(line.startswith('    the paper: "') for line in lines) > 50
    assert "    in plain words: At strict overlaps CPM R-CNN beats Grid R-CNN." in lines
    assert cli.main(["ablate", "report", "--json", "-"]) == 0
    assert {"id", "status", "parts", "level", "words"} <= set(json.loads(capsys.readouterr().out)[0])


def test_an_update_without_records_changes_nothing(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (root / "data/claims.json").read_bytes()
    for folder in (tmp_path, tmp_path / "missing"):
        monkeypatch.setenv("CPM_RESULTS", str(folder))
        assert cli.main(["ablate", "report", "--update"]) == 2
        error = capsys.readouterr().err.strip()
        assert f"no record in {folder} judges a claim" in error and "\n" not in error
    assert (root / "data/claims.json").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to run"),
        (["tabel4"], "unknown ablation 'tabel4'; did you mean 'table4'?"),
        (["table4", "--update"], "--update belongs to the report"),
        (["report", "table4"], "report prints all claims and takes no other name"),
        (["report", "--list"], "report prints all claims and takes no other name"),
        (["--list", "--data", "nonsense"], "both splits are needed, so name none"),
        (["--list", "--profile", "paper"], "ablations run at smoke, quick, gpu"),
        (["tabel4", "--list"], "unknown ablation 'tabel4'; did you mean 'table4'?"),
        (["table4", "--profile", "paper"], "ablations run at smoke, quick, gpu"),
        (["table4", "--data", "shapes:quick:val"], "both splits are needed, so name none"),
    ],
)
def test_mistakes(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_seeds_are_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["ablate", "table4", "--seeds", "0,x"])
    assert "no list of seeds such as 0,1,2" in capsys.readouterr().err
