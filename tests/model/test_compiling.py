"""torch.compile for backbone and FPN: the same maps for images of any size, and a clear word where it cannot work."""

from __future__ import annotations

import pytest
import torch

from cpm_lib import presets
from cpm_lib.errors import UserError
from cpm_lib.model import build_model, compile_backbone


def test_the_same_maps_for_every_size() -> None:
    torch.manual_seed(0)
    model = build_model(presets.get("cpm", "smoke"), 7).eval()
    images = [torch.rand(1, 3, height, width) for height, width in ((64, 96), (96, 64), (64, 64))]
    names = list(model.state_dict())
    with torch.inference_mode():
        expected = [model.backbone(image) for image in images]
        # What the usual backend makes of the graphs is torch's affair, and takes minutes.
        compile_backbone(model, "eager")
        for image, maps in zip(images, expected, strict=True):
            torch.testing.assert_close(model.backbone(image), maps, rtol=1e-5, atol=1e-5)
        model([image[0] for image in images])
    assert list(model.state_dict()) == names


def test_without_a_compiler_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_function: object, **_: object) -> object:
        raise RuntimeError("g++ is not there\nand much more")

    monkeypatch.setattr(torch, "compile", broken)
    model = build_model(presets.get("faster", "smoke"), 7)
    with pytest.raises(UserError, match=r"^--compile: .*\(g\+\+ is not there\).*leave it out$"):
        compile_backbone(model)
