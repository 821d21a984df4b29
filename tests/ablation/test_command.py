"""`cpm ablate` as somebody types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cpm_lib import cli
from cpm_lib.ablation.experiments import EXPERIMENTS
from cpm_lib.ablation.setting import Setting


def test_a_table_beside_the_papers(results: Path, setting: Setting, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--profile", "smoke", "--seeds", "0", "--runs", str(setting.runs)]
    assert cli.main(["ablate", "table4", "oracles", *options]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Table 4: paired-smoke; evidence E1: shapes"
    paper = lines[[line.startswith("stage 2") for line in lines].index(True) + 1].split()
    assert paper == ["paper", "40.7", "59", "-", "21.2", "22.6", "44", "54.6"]
    assert "Abstract: diagnosis-smoke; evidence E1: shapes" in lines
    assert cli.main(["ablate", "fig7", *options, "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found[0]["name"] == "fig7" and len(found[0]["rows"]) == 11


def test_the_list(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "--list", "--profile", "smoke", "--seeds", "0", "--json", "-"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert list(rows) == list(EXPERIMENTS)
    keys = {"name", "table", "level", "profile", "rows", "records", "seeds", "cost", "status"}
    assert all(keys <= set(row) for row in rows.values())
    assert rows["table4"]["status"] == "complete" and rows["table4"]["records"] == ["paired-smoke"]
    assert rows["table4"]["seeds"] == [0] and rows["table4"]["cost"].endswith("CPU min")
    assert rows["table2"]["status"] == "missing"
    assert cli.main(["ablate", "--list"]) == 0
    assert "trainings per seed" in capsys.readouterr().out


def test_the_report(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["ablate", "report"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("claims")
    assert cli.main(["ablate", "report", "--json", "-"]) == 0
    assert {"id", "status", "parts", "level"} <= set(json.loads(capsys.readouterr().out)[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "say what to run"),
        (["tabel4"], "unknown ablation 'tabel4'; did you mean 'table4'?"),
        (["table4", "--update"], "--update belongs to the report"),
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
