"""What an experiment runs on: where it computes, and what is refused before anything is trained."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from cpm_lib import ablation, cli, ledger, presets
from cpm_lib.ablation import diagnosis, joint, outside, paired
from cpm_lib.ablation import setting as settings
from cpm_lib.ablation.setting import Setting
from cpm_lib.errors import UserError
from cpm_lib.ledger import Record

PLACE = torch.device("meta")


def device_of(model: Any) -> torch.device:
    return next(model.parameters()).device


def test_models_are_evaluated_where_they_are_trained(
    setting: Setting, records: dict[str, Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = presets.get("faster", "smoke")
    joint.run(setting, config, 0)
    for module in (diagnosis, joint, outside, paired):
        monkeypatch.setattr(module, "place", lambda: PLACE)
    assert device_of(paired.heads(setting, paired.paired_config("smoke"), 0)) == PLACE
    assert device_of(diagnosis._trunk(setting)) == PLACE
    seen: list[torch.device] = []
    with monkeypatch.context() as patch:
        patch.setattr(joint, "evaluate", lambda model, _: seen.append(device_of(model)) or {})
        joint.run(setting, config, 0, {"classification.nms_iou": 0.41})
    with monkeypatch.context() as patch:
        patch.setattr(outside.evaluation, "predict", lambda *_, device: seen.append(device) or [])
        patch.setattr(outside.evaluation, "evaluate", lambda *_: dict.fromkeys(joint.METRICS))
        outside._same_weights(setting, config)
    assert seen == [PLACE] * 3


def test_the_place_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for there, kind in ((True, "cuda"), (False, "cpu")):
        monkeypatch.setattr(torch.cuda, "is_available", lambda there=there: there)
        assert settings.place() == torch.device(kind)


def test_records_name_the_device_of_their_runs(tmp_path: Path) -> None:
    for name, device in (("one", "cpu"), ("two", "cuda:1"), ("three", "cuda")):
        (tmp_path / name).mkdir()
        content = {"device": device, "environment": {"gpus": ["A", "B"]}}
        (tmp_path / name / "run.json").write_text(json.dumps(content))
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    assert [settings.trained_on(runs) for runs in ([one, one], [two], [three])] == ["cpu", "B", "A"]
    assert settings.trained_on([one, two, one]) == "cpu, B"


def test_every_record_of_the_ablations_is_given_its_device() -> None:
    calls = [
        node
        for file in Path(ablation.__file__).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "ledger.make"
    ]
    assert len(calls) >= 6
    assert all("device" in {keyword.arg for keyword in call.keywords} for call in calls)


@pytest.mark.parametrize("experiment", ["table4", "table2", "outside", "fig5", "switches", "table8"])
@pytest.mark.parametrize(
    ("place", "words"),
    [
        ("file.txt", "is a file, not a folder; choose another --runs"),
        ("file.txt/x", "is a file, not a folder; choose another --runs"),
        ("/proc/nope", "cannot be written (No such file or directory); choose another --runs"),
    ],
)
def test_run_folders_that_cannot_be_made(
    experiment: str, place: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if place.startswith("/proc") and not Path("/proc/self").exists():
        pytest.skip("no /proc on this system")
    (tmp_path / "file.txt").write_text("x")
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path / "results"))
    refused(experiment, str(tmp_path / place), words, monkeypatch, capsys)


def test_a_results_folder_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("x")
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path / "file.txt" / "results"))
    words = "is a file, not a folder; set CPM_RESULTS to another folder"
    refused("table4", str(tmp_path / "runs"), words, monkeypatch, capsys)


def refused(experiment: str, runs: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for module in (joint, outside, paired):
        monkeypatch.setattr(module, "train", lambda *_, **__: pytest.fail("trained first"))
    options = ["--profile", "smoke", "--seeds", "0", "--runs", runs]
    assert cli.main(["ablate", experiment, *options]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and words in said[0]


def test_a_record_is_not_replaced_by_one_of_other_data_of_the_same_name(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CPM_RESULTS", str(tmp_path))
    here = dataclasses.replace(setting, runs=tmp_path / "runs")
    id, own, mark = "paired-smoke", setting.val.name, setting.val.fingerprint()
    here.check(id)
    for data, fingerprint in (("voc:/a/data,val", mark), (own, "older"), ("", "")):
        ledger.write(Record(id, "", "E1", data=data, data_fingerprint=fingerprint))
        here.check(id)
    ledger.write(Record(id, "", "E2", data="voc:/a/data,val", data_fingerprint="other"))
    with pytest.raises(UserError, match=r"paired-smoke\.json is of voc:/a/data,val, not of shapes:smoke:val"):
        here.check(id)
