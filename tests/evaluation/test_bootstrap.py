"""Bootstrap intervals: exact for the data as it is, paired, and on the right side."""

from __future__ import annotations

import copy

import pytest
import torch

from cpm_lib.errors import UserError
from cpm_lib.evaluation import Resampling, bootstrap, bootstrap_ap, bootstrap_difference, evaluate, summary
from cpm_lib.evaluation.average_precision import class_matches, judge, weighted_ap
from cpm_lib.evaluation.ground_truth import GroundTruth
from tests.evaluation.samples import make


@pytest.mark.parametrize("metric", ["AP", "AP50", "AP75", "AP90", "APS", "APM", "APL"])
def test_weight_one_equals_pycocotools(metric: str) -> None:
    coco, detections = make(images=60)
    interval = bootstrap_ap(detections, coco, samples=20, metric=metric)
    assert interval["ap"] == pytest.approx(evaluate(detections, coco)[metric], abs=1e-9)


def test_counts_equal_a_data_set_with_duplicated_images() -> None:
    coco, detections = make(images=15)
    counts = [(2 * i + i // 3) % 4 for i in range(15)]
    larger = {**coco, "images": [], "annotations": []}
    repeated = []
    for image, detection, count in zip(coco["images"], detections, counts, strict=True):
        for copy_number in range(count):
            new_id = 1000 * (copy_number + 1) + image["id"]
            larger["images"].append({**image, "id": new_id})
            own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
            larger["annotations"] += [{**copy.copy(a), "image_id": new_id} for a in own]
            # Copies a hair apart keep the copies' order without ties.
            scores = detection["scores"].double() - 1e-9 * copy_number
            repeated.append({**detection, "scores": scores, "image_id": new_id})
    truth = GroundTruth.of(coco)
    order = sorted(range(15), key=lambda i: truth.image_ids[i])
    weights = torch.tensor([[counts[i] for i in order]], dtype=torch.float64)
    weighted = weighted_ap(class_matches(judge(detections, truth)), weights)
    # Copies of a hit step up one after the other in the real data set and at once in the weighted one.
    # Precision within such a step is the only difference.
    assert float(weighted) == pytest.approx(evaluate(repeated, larger)["AP"], abs=0.2)


def test_identical_detections_differ_by_exactly_zero() -> None:
    coco, detections = make()
    result = bootstrap_difference(detections, copy.deepcopy(detections), coco, samples=100)
    assert result == {"difference": 0.0, "low": 0.0, "high": 0.0, "sd": 0.0, "samples": 100}


def test_better_detections_lie_above_zero_and_sides_are_antisymmetric() -> None:
    coco, better = make(noise=2.0)
    _, worse = make(noise=6.0)
    result = bootstrap_difference(better, worse, coco, samples=200, seed=3)
    difference, low, high = result["difference"], result["low"], result["high"]
    assert difference == pytest.approx(evaluate(better, coco)["AP"] - evaluate(worse, coco)["AP"], abs=1e-9)
    assert isinstance(low, float) and isinstance(high, float) and 0 < low < high
    turned = bootstrap_difference(worse, better, coco, samples=200, seed=3)
    assert (turned["low"], turned["high"]) == pytest.approx((-high, -low))
    assert bootstrap_difference(better, worse, coco, samples=200, seed=3) == result


def test_pairing_narrows_the_interval() -> None:
    coco, a = make(noise=3.0)
    b = [{**d, "boxes": d["boxes"] + 0.5} for d in a]
    paired, single = bootstrap_difference(a, b, coco, samples=200), bootstrap_ap(a, coco, samples=200)
    assert isinstance(paired["sd"], float) and isinstance(single["sd"], float)
    assert paired["sd"] < 0.5 * single["sd"]


def test_combinations_of_several_rows_share_their_draws() -> None:
    coco, better = make(images=20, noise=2.0)
    _, worse = make(images=20, noise=6.0)
    drawn = Resampling(coco, {"better": better, "worse": worse}, samples=50, seed=3)
    for metric in ("AP", "APL"):
        found = summary(drawn.ap("better", metric) - drawn.ap("worse", metric))
        assert found == bootstrap_difference(better, worse, coco, samples=50, seed=3, metric=metric)
    mean = sum(drawn.ap("worse", f"AP{percent}") for percent in range(50, 100, 5)) / 10
    assert torch.allclose(mean, drawn.ap("worse"))
    gain = {metric: drawn.ap("better", metric) - drawn.ap("worse", metric) for metric in ("AP50", "AP90")}
    assert summary(gain["AP90"] - gain["AP50"])["difference"] == pytest.approx(
        sum(sign * evaluate(side, coco)[metric]
            for side, direction in ((better, 1), (worse, -1))
            for metric, sign in (("AP90", direction), ("AP50", -direction)))
    )  # fmt: skip
    assert summary(drawn.ap("better") - drawn.ap("better")) == {
        "difference": 0.0, "low": 0.0, "high": 0.0, "sd": 0.0, "samples": 50,
    }  # fmt: skip


def test_no_object_and_wrong_metric() -> None:
    coco, detections = make(images=5)
    empty = bootstrap_difference(detections, detections, {**coco, "annotations": []}, samples=5)
    assert empty == {"difference": None, "low": None, "high": None, "sd": None, "samples": 5}
    with pytest.raises(UserError, match="AP55"):
        bootstrap_ap(detections, coco, metric="AP5")


def test_rows_are_paired_first_with_last_and_class_with_fused_score() -> None:
    coco, detections = make(images=20)
    same = [(1, "cls", detections), (2, "cls", detections), (2, "cls_ism", detections), (2, "fused", detections)]
    found = bootstrap.paired_differences(same, coco, samples=10)
    assert list(found) == ["stage 2 - stage 1, cls", "fused - cls, stage 2"]
    assert all(value["difference"] == 0 for value in found.values())
    assert bootstrap.paired_differences(same[:1], coco) == {}
