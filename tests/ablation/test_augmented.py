"""Several looks at every image, from a training that other experiments share."""

from __future__ import annotations

from pathlib import Path

import pytest

from cpm_lib import presets
from cpm_lib.ablation import augmented, joint
from cpm_lib.ablation.setting import Setting
from cpm_lib.claims import read_claims


def test_one_training_evaluated_in_four_ways(setting: Setting, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = augmented.record(setting, 0)
    rows = made.metrics["rows"]
    assert list(rows) == list(augmented.WAYS)
    config = presets.get("cpm", "smoke")
    trained = joint.run(setting, config, 0)
    assert rows["one look"] == trained["last"]
    claim = next(claim for claim in read_claims() if claim.id == augmented.CLAIM_ID)
    found = made.differences["table7"]["test-time-strategy"]
    assert set(found) == set(claim.values) and found["AP"]["samples"] == 1000
    gain = (rows["nine sizes, mirror"]["AP"] or 0.0) - (rows["one look"]["AP"] or 0.0)
    assert found["AP"]["difference"] == pytest.approx(gain)
    monkeypatch.setattr(joint, "run", lambda *_: pytest.fail("the record is there"))
    assert augmented.record(setting, 0) == made
