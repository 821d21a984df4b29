"""The smoke shapes, their run folders and their records, made once for all tests of the ablations."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpm_lib.ablation import diagnosis, paired_record
from cpm_lib.ablation.setting import Setting
from cpm_lib.ledger import Record


@pytest.fixture(scope="session")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Setting:
    return Setting.open("smoke", runs=tmp_path_factory.mktemp("ablation") / "runs")


@pytest.fixture(scope="session")
def records(setting: Setting) -> dict[str, Record]:
    """The paired record and its diagnosis, in a folder beside the runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPM_RESULTS", str(setting.runs.parent / "results"))
        return {"paired": paired_record.record(setting, 0), "diagnosis": diagnosis.record(setting, 0)}


@pytest.fixture
def results(setting: Setting, records: dict[str, Record], monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of `records`, in which new ones are looked for and written."""
    folder = setting.runs.parent / "results"
    monkeypatch.setenv("CPM_RESULTS", str(folder))
    return folder
