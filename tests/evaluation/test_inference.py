"""One pass over a data set: order, ids, device, mode and number types."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cpm_lib import environment
from cpm_lib.evaluation import predict


class Images(torch.utils.data.Dataset[Any]):
    """Five images of different size; the image's mean is its number / 10."""

    image_ids = (9, 4, 7, 1, 30)
    name = "made up"

    def __len__(self) -> int:
        return 5

    def size(self, index: int) -> tuple[int, int]:
        return 20 + index, 16

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Any]]:
        return torch.full((3, 16, 20 + index), index / 10), {"image_id": self.image_ids[index]}


class Model(nn.Module):
    """Returns what it saw."""

    def __init__(self, precision: str) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1, 1))
        self.config = SimpleNamespace(solver=SimpleNamespace(precision=precision))
        self.batches: list[int] = []

    def forward(self, images: list[Tensor]) -> list[dict[str, Tensor]]:
        assert not self.training and not torch.is_grad_enabled()
        self.batches.append(len(images))
        means = [image.mean().reshape(1, 1) @ self.scale for image in images]
        return [
            {"boxes": torch.zeros(1, 4), "scores": mean[0], "labels": torch.ones(1, dtype=torch.int64)}
            for mean in means
        ]


def test_order_ids_and_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "has_bfloat16", lambda device: True)
    for precision in ("fp32", "bf16"):
        model = Model(precision).train()
        detections = predict(model, Images(), batch_size=2)
        assert model.training and model.batches == [2, 2, 1]
        assert [d["image_id"] for d in detections] == [9, 4, 7, 1, 30]
        for number, detection in enumerate(detections):
            assert detection["scores"].dtype == torch.float32 and detection["labels"].dtype == torch.int64
            assert not detection["scores"].is_inference()
            assert abs(float(detection["scores"]) - number / 10) < (1e-6 if precision == "fp32" else 2e-3)
    assert float(detections[1]["scores"]) != float(torch.tensor(0.1))  # bfloat16 was really used
