"""Our functions give the numbers the authors' code gave; and the comparison would notice if they did not."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.golden import __main__ as runner
from tests.golden import harness

FILES = sorted(harness.CHECKS)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> object:
    """As the recordings were made: sums of floats depend on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def recording(file: str) -> harness.Recording:
    return harness.run(file)


def test_every_recorded_file_has_its_comparison() -> None:
    assert {path.stem for path in harness.folder().glob("*.npz")} == set(FILES)


@pytest.mark.parametrize("file", FILES)
def test_matches_the_recording(file: str) -> None:
    assert not recording(file).mismatches
    assert not recording(file).unseen(), "arrays that nobody compares"


@pytest.mark.parametrize("file", FILES)
def test_notices_wrong_numbers(file: str) -> None:
    """One value changed in each compared array: every array is reported, and no other."""
    with np.load(harness.folder() / f"{file}.npz") as stored:
        arrays = {key: np.array(value) for key, value in stored.items()}
    changed = {key for key in recording(file).compared if arrays[key].size and key not in recording(file).inputs}
    for key in changed:
        flat = arrays[key].reshape(-1)
        position = np.flatnonzero(np.isfinite(flat))[-1]
        flat[position] = not flat[position] if flat.dtype == bool else flat[position] + 1
        arrays[key] = flat.reshape(arrays[key].shape)
    assert changed
    assert {line.split(": ")[0] for line in recording(file).against(arrays).mismatches} == changed


def test_notices_wrong_inputs_and_arrays_nobody_knows() -> None:
    with np.load(harness.folder() / "b_decode.npz") as stored:
        arrays = dict(stored)
    moved = arrays | {"boxes": arrays["boxes"] + 1}
    assert harness.run("b_decode", moved).mismatches
    assert harness.run("b_decode", arrays | {"new": arrays["boxes"]}).unseen() == ["new"]


def test_runner(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "golden.json"
    assert runner.main(["--file", "b_decode", "k_lr", "--json", str(out)]) == 0
    written = json.loads(out.read_text())
    assert written["ok"] and [entry["file"] for entry in written["files"]] == ["b_decode", "k_lr"]
    assert {"compared", "max_abs", "max_rel", "not_compared", "ok"} <= written["files"][0].keys()
    capsys.readouterr()
    monkeypatch.setenv("CPM_GOLDEN_DIR", str(tmp_path))
    assert runner.main(["--file", "b_decode", "--json", str(out)]) == 1
    assert "DIFFERENT" in capsys.readouterr().out and not json.loads(out.read_text())["ok"]
