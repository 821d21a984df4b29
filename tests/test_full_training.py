"""Chapter 9 as a cluster would run it: papermill, parameters, two processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import papermill
import pytest

from cpm_lib import ledger
from cpm_lib.training import checkpoint
from cpm_lib.training.run_folder import RunFolder


def text_of(cell: dict[str, Any]) -> str:
    return "".join("".join(output.get("text", "")) for output in cell["outputs"])


def test_papermill_runs_it_on_two_processes(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    run = tmp_path / "run"
    parameters = {"out": str(run), "processes": 2, "seed": 3, "iterations": 8, "interrupt": True}
    parameters["settings"] = ["solver.images_per_batch=4", "solver.lr=0.001"]
    results = {path: path.stat().st_mtime_ns for path in (root / "data/results").iterdir()}
    executed = papermill.execute_notebook(
        root / "notebooks/09_full_training.ipynb",
        tmp_path / "executed.ipynb",
        parameters=parameters,
        kernel_name="python3",
        progress_bar=False,
        cwd=root / "notebooks",
        execution_timeout=600,
        extra_arguments=["--log-level=40"],
    )
    cells = {cell["id"]: cell for cell in executed["cells"] if cell["cell_type"] == "code"}
    outputs = [output for cell in cells.values() for output in cell["outputs"]]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert "ACT" not in text_of(cells["run-preflight"]) and "time" in text_of(cells["run-preflight"])
    assert "iteration 8/8" in text_of(cells["run-training"])
    assert any("image/png" in output["data"] for output in cells["curves"]["outputs"])
    assert text_of(cells["resume-run"]).count("True") == 2, text_of(cells["resume-run"])
    described = RunFolder(run).read()
    assert described["processes"] == 2 and described["seed"] == 3
    assert described["config"]["solver"]["images_per_batch"] == 4
    assert checkpoint.read_card(run).iterations == 8
    record = ledger.read("full-training-cpm-smoke", run)
    assert record.level == "E1" and record.metrics["stage3-fused"].keys() >= {"AP", "AP50"}
    assert record.config == json.loads(json.dumps(checkpoint.read_card(run).config.to_dict()))
    assert {path: path.stat().st_mtime_ns for path in (root / "data/results").iterdir()} == results
    assert sorted(path.name for path in tmp_path.iterdir()) == ["executed.ipynb", "run"]
