"""COCO metrics against pycocotools used by hand."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cpm_lib.errors import UserError
from cpm_lib.evaluation import evaluate, rescore, rows
from tests.evaluation import samples
from tests.evaluation.samples import CATEGORY_IDS, make


def by_hand(coco: dict[str, Any], detections: list[dict[str, Any]]) -> COCOeval:
    """The recipe of the pycocotools demo, annotation ids made positive."""
    truth = COCO()
    truth.dataset = {**coco, "annotations": [{**a, "id": a["id"] + 1} for a in coco["annotations"]]}
    results = []
    for detection in detections:
        for box, score, label in zip(detection["boxes"], detection["scores"], detection["labels"], strict=True):
            x1, y1, x2, y2 = box.double().tolist()
            results.append(
                {
                    "image_id": detection["image_id"],
                    "category_id": CATEGORY_IDS[label - 1],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "score": float(score.double()),
                }
            )
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluator = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    return evaluator


def test_equals_pycocotools(capsys: pytest.CaptureFixture[str]) -> None:
    coco, detections = make()
    metrics = evaluate(detections, coco)
    assert capsys.readouterr().out == ""
    evaluator = by_hand(coco, detections)
    for position, name in {0: "AP", 1: "AP50", 2: "AP75", 3: "APS", 4: "APM", 5: "APL", 8: "AR100"}.items():
        assert metrics[name] == pytest.approx(100 * evaluator.stats[position], abs=1e-9), name
    precision = evaluator.eval["precision"]
    for index, name in {2: "AP60", 4: "AP70", 6: "AP80", 8: "AP90"}.items():
        at = precision[index, :, :, 0, 2]
        assert metrics[name] == pytest.approx(100 * at[at > -1].mean(), abs=1e-9), name
    for k, category in enumerate(CATEGORY_IDS[:3]):
        assert metrics["per_class"][f"class {category}"] == pytest.approx(100 * precision[:, :, k, 0, 2].mean())
    assert metrics["per_class"]["class 90"] is None  # no object of this class


def test_perfect_detections_and_order() -> None:
    coco, _ = make(images=12)
    label = {category: number for number, category in enumerate(CATEGORY_IDS, start=1)}
    detections = []
    for image in coco["images"]:
        own = [a for a in coco["annotations"] if a["image_id"] == image["id"]]
        xywh = torch.tensor([a["bbox"] for a in own], dtype=torch.float64).reshape(-1, 4)
        boxes = torch.cat([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], dim=1)
        labels = torch.tensor([label[a["category_id"]] for a in own], dtype=torch.int64)
        detections.append({"boxes": boxes, "scores": torch.ones(len(own)), "labels": labels})
    metrics = evaluate(detections, coco)  # without image_id: in the order of coco["images"]
    assert metrics["AP"] == pytest.approx(100)
    wrong = [{**d, "labels": d["labels"] % 3 + 1} for d in detections]
    assert evaluate(wrong, coco)["AP50"] < 10


def test_empty_detections_and_empty_truth() -> None:
    coco, detections = make(images=6)
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.int64)}
    for empty in ([], [none] * 6):
        metrics = evaluate(empty, coco)
        assert metrics["AP"] == metrics["AP50"] == metrics["AR100"] == 0
    nothing = evaluate(detections, {**coco, "annotations": []})
    assert all(value is None for key, value in nothing.items() if key != "per_class")
    assert set(nothing["per_class"].values()) == {None}


def test_area_limits_are_side_lengths() -> None:
    def one(side: float) -> dict[str, Any]:
        return {
            "images": [{"id": 1}],
            "categories": [{"id": 5, "name": "a"}],
            "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [0, 0, side, side], "area": side**2}],
        }

    def found(side: float, limits: tuple[float, float] | None) -> str:
        box = torch.tensor([[0.0, 0.0, side, side]])
        detection = {"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)}
        metrics = evaluate([detection], one(side), limits)
        return "".join(name[2] for name in ("APS", "APM", "APL") if metrics[name] is not None)

    assert [found(side, None) for side in (31, 33, 95, 97)] == ["S", "M", "M", "L"]
    assert [found(side, (10, 40)) for side in (9, 11, 39, 41)] == ["S", "M", "M", "L"]


def test_curves_come_from_the_same_evaluation() -> None:
    coco, detections = make()
    metrics = evaluate(detections, coco, (50, 80), curves=True)
    curves = metrics.pop("curves")
    assert metrics == evaluate(detections, coco, (50, 80))
    assert curves["iou"] == [0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95]
    assert [curves["all"][k] for k in (0, 2, 4, 5, 6, 8)] == [metrics[f"AP{p}"] for p in (50, 60, 70, 75, 80, 90)]
    for size, name in (("all", "AP"), ("small", "APS"), ("medium", "APM"), ("large", "APL")):
        assert sum(curves[size]) / 10 == pytest.approx(metrics[name])


def test_curves_by_hand() -> None:
    """A small object found by IoU 0.8, a large one by 0.62; nothing of medium size to find."""
    boxes = [[0, 0, 10, 10], [100, 0, 200, 100]]
    coco = samples.truth(*(samples.annotation(1, 1, box) for box in boxes), classes=1)
    found = [samples.detection([[0, 0, 10, 8], [100, 0, 200, 62]], [0.9, 0.8], [1, 1])]
    curves = evaluate(found, coco, curves=True)["curves"]
    assert curves["small"] == pytest.approx([100] * 7 + [0] * 3)
    assert curves["large"] == pytest.approx([100] * 3 + [0] * 7)
    assert curves["medium"] == [None] * 10
    # Alone, the small one is half of the objects: 51 of 101 recall points.
    assert curves["all"] == pytest.approx([100] * 3 + [100 * 51 / 101] * 4 + [0] * 3)


def test_data_set_brings_mapping_order_and_limits(tmp_path: Path) -> None:
    coco, detections = make(images=10)
    reverse = [{**d, "labels": 5 - d["labels"]} for d in detections]
    dataset = SimpleNamespace(
        name="made up",
        coco=coco,
        image_ids=[image["id"] for image in coco["images"]],
        label_to_category={5 - label: category for label, category in enumerate(CATEGORY_IDS, start=1)},
        area_limits=(50.0, 80.0),
    )
    expected = evaluate(detections, coco, (50, 80))
    assert evaluate(reverse, dataset) == expected
    assert evaluate(reverse, dataset, (32, 96))["APS"] == evaluate(detections, coco)["APS"] != expected["APS"]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(coco))
    assert evaluate(detections, path, (50, 80)) == expected


def test_bad_input_is_one_clear_line(tmp_path: Path) -> None:
    coco, detections = make(images=6)
    broken = tmp_path / "broken.json"
    broken.write_text('{"images": [')
    cases: list[tuple[list[dict[str, Any]], Any, str]] = [
        (detections, tmp_path / "absent.json", "absent.json"),
        (detections, broken, "broken JSON"),
        (detections, {"images": []}, "categories"),
        ([{**detections[0], "image_id": 1}], coco, "no such image"),
        ([detections[0], detections[0]], coco, "twice"),
        ([{k: v for k, v in detections[0].items() if k != "image_id"}], coco, "6 images"),
        ([{**detections[0], "labels": detections[0]["labels"] + 9}], coco, "no category"),
        ([{**detections[0], "scores": detections[0]["scores"] * torch.nan}], coco, "every score is NaN"),
        ([{**detections[0], "boxes": detections[0]["boxes"] * torch.inf}], coco, "not finite"),
        ([{**detections[0], "scores": detections[0]["scores"][:-1]}], coco, "scores"),
    ]
    for given, truth, words in cases:
        with pytest.raises(UserError, match=words) as caught:
            evaluate(given, truth)
        assert "\n" not in str(caught.value)


def test_nan_scores_rank_last() -> None:
    """The unclamped fused score of the official conventions holds NaN."""
    coco, detections = make(images=10)
    metrics = []
    for value in (torch.nan, 0.0):
        for detection in detections:
            detection["scores"][1::4] = value
        metrics.append(evaluate(detections, coco))
    assert metrics[0] == metrics[1]
    assert 0 < metrics[0]["AP"] < evaluate(make(images=10)[1], coco)["AP"]


def parts(count: int, stages: int, *names: str) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(count)
    scores = {name: torch.rand(count, generator=generator) for name in ("scores", "cls_scores", *names)}
    boxes = torch.rand(count, stages, 4, generator=generator)
    labels = torch.ones(count, dtype=torch.int64)
    return {**scores, "stage_boxes": boxes, "boxes": boxes[:, -1], "labels": labels, "image_id": count}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ((), ["cls"]),
        (("iou_scores",), ["cls", "cls_ism"]),
        (("rsm_scores",), ["cls", "cls_rsm"]),
        (("iou_scores", "rsm_scores"), ["cls", "cls_ism", "cls_rsm", "fused"]),
    ],
)
def test_rows(names: tuple[str, ...], expected: list[str]) -> None:
    detections = [parts(5, 3, *names), parts(0, 3, *names)]
    table = rows(detections, gamma=0.8)
    assert [(stage, score) for stage, score, _ in table] == [(1, "cls"), (2, "cls"), *((3, s) for s in expected)]
    for stage, _, row in table:
        assert torch.equal(row[0]["boxes"], detections[0]["stage_boxes"][:, stage - 1])
        assert [d["image_id"] for d in row] == [5, 0]
    assert torch.equal(table[0][2][0]["scores"], detections[0]["cls_scores"])
    if len(expected) == 4:
        d = detections[0]
        ism = d["cls_scores"] * d["iou_scores"]
        torch.testing.assert_close(table[3][2][0]["scores"], ism)
        torch.testing.assert_close(table[5][2][0]["scores"], ism**0.8 * d["rsm_scores"] ** 0.2)
        torch.testing.assert_close(rescore(detections, "fused", 1.0)[0]["scores"], ism)


def test_rows_of_a_detector_without_parts() -> None:
    detection = {"boxes": torch.rand(2, 4), "scores": torch.rand(2), "labels": torch.ones(2, dtype=torch.int64)}
    [(stage, score, row)] = rows([detection], gamma=0.8)
    assert (stage, score) == (1, "cls")
    assert torch.equal(row[0]["scores"], detection["scores"])
