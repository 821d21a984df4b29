"""Our functions give the numbers the authors' code gave; and the comparison would notice if they did not."""

from __future__ import annotations

import numpy as np
import pytest

from tests.golden import checks, harness  # noqa: F401  (checks registers the comparisons)


@pytest.mark.parametrize("file", sorted(harness.CHECKS))
def test_matches_the_recording(file: str) -> None:
    recording = harness.run(file)
    assert not recording.mismatches
    assert not recording.unseen(), "arrays that nobody compares"


@pytest.mark.parametrize("file", sorted(harness.CHECKS))
def test_notices_a_wrong_number(file: str) -> None:
    compared = harness.run(file).compared
    with np.load(harness.folder() / f"{file}.npz") as stored:
        arrays = {key: np.array(value) for key, value in stored.items()}
    key = next(key for key in compared if arrays[key].size)
    value = arrays[key].reshape(-1)
    middle = len(value) // 2
    value[middle] = not value[middle] if value.dtype == bool else value[middle] + 1
    arrays[key] = value.reshape(arrays[key].shape)
    assert not harness.run(file, arrays).ok
