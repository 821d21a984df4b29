"""`cpm bench` at smoke size: its form, the RoIs it forces, what it counts. Never how fast anything is."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cpm_lib import _torchvision, bench, complexity, presets
from cpm_lib.bench import comparison, detectors, heatmap_targets, measuring, memory, parts, peer, report, switches
from cpm_lib.bench.case import Case, Running, forced
from cpm_lib.bench.synchronisation import watching
from cpm_lib.cli import main
from cpm_lib.environment import has_bfloat16
from cpm_lib.errors import UserError
from cpm_lib.model import winograd

FORM = ["name", "median_s", "repeats", "peak_mb", "flops", "ratio", "against"]


@pytest.fixture(autouse=True)
def small_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measuring, "PRODUCT_SIDE", {"cpu": 64, "cuda": 64})


def case(preset: str = "cpm", work: str = "inference", rois: int = 10, **options: Any) -> Case:
    return forced(presets.get(preset, "smoke"), work, rois, **options)


def result(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["bench", *arguments, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert {"device", "threads", "dtype", "rows"} <= content.keys()
    for row in content["rows"]:
        assert list(row)[: len(FORM)] == FORM
        assert row["low_s"] <= row["median_s"] <= row["high_s"]
    return content


# ---- forced RoIs


def test_each_grid_stage_gets_as_many_distinct_rois_as_asked_for() -> None:
    running = Running(case(rois=12, batch=2))
    seen: list[tuple[Tensor, Tensor]] = []
    pool = running.model.cascade.pool
    pool.register_forward_pre_hook(lambda _, inputs: seen.append((inputs[1].image, inputs[1].boxes)))
    found = running()
    assert len(seen) == 3
    for image, boxes in seen:
        assert torch.bincount(image).tolist() == [12, 12]
        assert len(torch.cat((image[:, None], boxes), dim=1).unique(dim=0)) == 24
    assert [len(detections["boxes"]) for detections in found] == [12, 12]


@pytest.mark.parametrize("preset", ["grid-fused", "grid-original", "faster", "cascade-ism-rsm"])
def test_other_detectors_give_as_many_detections(preset: str) -> None:
    running = Running(case(preset, rois=7))
    observed = comparison.examine(running)
    assert observed.stage_rois == ([7] if preset.startswith("grid") else [])
    assert len(running()[0]["boxes"].unique(dim=0)) == 7


def test_the_peer_has_the_same_proposals_and_detections() -> None:
    ours = case(rois=12, batch=2)
    theirs = Running(replace(ours, name=peer.NAME, torchvision=True))
    assert [len(found["boxes"].unique(dim=0)) for found in theirs()] == [12, 12]
    assert comparison.examine(theirs).proposals == comparison.examine(Running(ours)).proposals


def test_at_the_papers_size_the_peer_is_torchvisions_own() -> None:
    from torchvision.models.detection import fasterrcnn_resnet50_fpn

    built = peer.build(presets.get("cpm"), 81, (800, 1333))
    own = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=81)
    # Its frozen norms are buffers there and, without weights, norms to be trained here.
    shapes = {name: value.shape for name, value in own.state_dict().items() if "num_batches_tracked" not in name}
    assert {name: value.shape for name, value in built.state_dict().items()} == shapes
    assert str(built.transform) == str(own.transform)
    for part in ("rpn", "roi_heads"):
        assert str(getattr(built, part)) == str(getattr(own, part))


@pytest.mark.parametrize("preset", ["cpm", "grid"])
def test_each_grid_stage_is_trained_on_as_many_positives(preset: str) -> None:
    running = Running(case(preset, "training", rois=4, batch=2))
    observed = comparison.examine(running, parts.calls(running))
    assert observed.stage_rois == [8] * (3 if preset == "cpm" else 1)
    before = [value.clone() for value in running.model.parameters()]
    losses = running()
    assert all(bool(value.isfinite()) for value in losses.values())
    # Learning rate 0: the next step is the same one.
    assert all(torch.equal(old, new) for old, new in zip(before, running.model.parameters(), strict=True))
    again = running()
    assert all(torch.equal(losses[name], again[name]) for name in losses)


def test_rois_that_cannot_be_forced() -> None:
    with pytest.raises(UserError, match="31 RoIs per image, of 30 proposals"):
        case(rois=31)
    with pytest.raises(UserError, match="5 RoIs per image, of 4 positives"):
        case(work="training", rois=5)
    with pytest.raises(UserError, match="30 RoIs were to enter each grid stage"):
        comparison.examine(Running(case(rois=30, size=(16, 16))))


# ---- what is counted


def test_operations_are_those_of_complexity() -> None:
    one = case(rois=10)
    running = Running(one)
    observed = comparison.examine(running, parts.calls(running))
    described = complexity.describe(one.config, num_classes=81)
    assert observed.flops == pytest.approx(described["total_gmac"] * 2e9)
    assert sum(observed.part_flops.values()) == pytest.approx(observed.flops)
    assert observed.part_flops["backbone"] == pytest.approx(described["gmac"]["backbone"] * 2e9)
    assert observed.part_flops["grid stage 2"] + observed.part_flops["grid RoIAlign"] / 3 == pytest.approx(
        described["gmac"]["grid stage 2"] * 2e9
    )


def test_backward_costs_twice_what_is_trained_forward() -> None:
    weight = torch.nn.Parameter(torch.rand(6, 5))
    features = torch.rand(1, 3, 16, 16, requires_grad=True)
    rois = torch.tensor([[0.0, 1, 1, 9, 9]])
    with measuring.flop_counter() as counter:
        (torch.rand(4, 6, requires_grad=True) @ weight).sum().backward()
    assert counter.get_total_flops() == 3 * 2 * 4 * 6 * 5
    with measuring.flop_counter() as counter:
        _torchvision._roi_align(features, rois, 7, 1.0, 2).sum().backward()
    assert counter.get_total_flops() == 2 * (8 * 4 * 49 * 3)


def test_fast_paths_are_off_only_inside() -> None:
    def states() -> list[bool]:
        return [getattr(module, switch) for module, switch in switches.SWITCHES.values()]

    with switches.without():
        assert not any(states())
    with switches.without(["Winograd"]):
        assert not winograd.ENABLED and sum(states()) == len(states()) - 1
    assert all(states())


def test_waits_for_a_gpu() -> None:
    x = torch.tensor([3.0, -1.0, 2.0])
    waiting: dict[str, Callable[[], Any]] = {
        "aten::nonzero": lambda: torch.where(x > 0),
        "aten::_local_scalar_dense": lambda: float(x[0]),
        "aten::index with a mask": lambda: x[x > 0],
        "aten::masked_select": lambda: x.masked_select(x > 0),
        "aten::_unique2": lambda: x.unique(),
        "aten::repeat_interleave": lambda: x.repeat_interleave(torch.tensor([1, 0, 2])),
        "aten::bincount": lambda: x.abs().long().bincount(),
        "Tensor.tolist": lambda: x.tolist(),
        "Tensor.cpu": lambda: x.cpu(),
        "torch.tensor on a device": lambda: torch.tensor([1.0, 2.0], device=x.device),
        "torchvision::nms": lambda: torch.ops.torchvision.nms(x.new_ones(1, 4), x[:1], 0.5),
    }
    for operator, call in waiting.items():
        for context in (torch.no_grad, torch.inference_mode):
            with context(), watching() as places:
                call()
            assert {name for name, _ in places} == {operator} and places.total() == 1, operator
    with watching() as places:
        x[torch.tensor([0, 2])] = x.topk(2).values
        x.repeat_interleave(torch.tensor([1, 0, 2]), output_size=3)
        y = x.clone()
        y[y > 0] = 0.0
    assert not places


def test_waits_are_found_in_the_source() -> None:
    running = Running(case(work="training", rois=4))
    places = comparison.examine(running).places()
    assert places and all(entry["count"] > 0 for entry in places)
    assert {entry["place"].split("/")[0] for entry in places} <= {"model", "torchvision"}


def test_parts_are_charged_without_what_they_call() -> None:
    class Work:
        spent = 0.0

        def outer(self) -> None:
            self.spent += 1
            self.inner()
            self.inner()

        def inner(self) -> None:
            self.spent += 10

    work = Work()
    with measuring.divided([("outer", work, "outer"), ("inner", work, "inner")], lambda: work.spent) as used:
        work.outer()
    assert used == {"outer": 1, "inner": 20}
    work.outer()
    assert used == {"outer": 1, "inner": 20} and not {"outer", "inner"} & vars(work).keys()


def test_sides_take_turns_in_both_orders() -> None:
    order: list[str] = []
    ours, theirs = measuring.alternate(lambda: order.append("A"), lambda: order.append("B"), repeats=3)
    assert "".join(order) == "ABBAAB" and len(ours) == len(theirs) == 3
    passes = [[measuring.Pass(wall, wall, {}, {}) for wall in walls] for walls in ((2.0, 9.0, 2.0), (1.0, 3.0, 2.0))]
    found = measuring.ratios(*passes)
    assert (found["ratio"], found["ratio_first"], found["ratio_second"]) == (2.0, 1.5, 3.0)


def test_straight_line() -> None:
    fit = detectors.line([1, 2, 3], [5.0, 7.0, 9.0])
    assert fit == {"slope_s": 2.0, "intercept_s": 3.0, "r2": 1.0}
    assert detectors.line([1], [5.0])["slope_s"] is None


# ---- the commands


def test_memory_of_a_fresh_process() -> None:
    peak = memory.peak_mb(case(rois=4), threads=1)
    assert (peak is not None and peak > 1) == Path("/proc/self/status").exists()


def test_held_memory_is_that_of_weights_gradients_and_moments() -> None:
    running = Running(case(work="training", rois=4))
    running()
    own = [*running.model.parameters(), *running.model.buffers()]
    own += [weight.grad for weight in running.model.parameters() if weight.grad is not None]
    own += [state[name] for state in running.optimiser.state.values() for name in ("exp_avg", "exp_avg_sq")]
    assert running.held_mb() == pytest.approx(sum(one.numel() * one.element_size() for one in own) / 1e6)
    still = Running(case(rois=4))
    assert still.held_mb() < running.held_mb() / 2


def test_inference(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "peak_mb", lambda case, threads: 3.0 if case.torchvision else 6.0)
    content = result(capsys, "inference", "--profile", "smoke", "--rois", "10", "--repeats", "2", "--threads", "1")
    rows = {row["name"]: row for row in content["rows"]}
    ours, theirs = rows["cpm"], rows["torchvision"]
    assert ours["stage_rois"] == [10, 10, 10] and ours["against"] == "torchvision" and ours["repeats"] == 2
    assert content["flop_ratio"] == pytest.approx(ours["flops"] / theirs["flops"])
    assert content["image"] == [64, 96] and content["rois"] == [10, 10] and content["threads"] == 1
    assert content["ratio"] == ours["ratio"] > 0
    for side in ("cpm", "torchvision"):
        of_parts = [row for name, row in rows.items() if name.startswith(f"{side}: ")]
        assert sum(row["flops"] or 0 for row in of_parts) == rows[side]["flops"]
        assert sum(wait["count"] for wait in content["synchronisations"][side]) == rows[side]["synchronisations"]
    assert (ours["peak_mb"], theirs["peak_mb"], content["memory_ratio"]) == (6.0, 3.0, 2.0)
    assert ours["channels_last"] and theirs["channels_last"] in (True, False)
    assert content["memory_bound"] == pytest.approx(1 + (ours["held_mb"] - theirs["held_mb"]) / 3.0)


def test_torchvision_is_timed_in_its_faster_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    for faster in (True, False):

        def one_pass(running: Running, faster: bool = faster) -> measuring.Pass:
            return measuring.Pass(float(running.case.config.solver.channels_last != faster), 0.0, {}, {})

        monkeypatch.setattr(measuring, "one_pass", one_pass)
        found = detectors.in_faster_layout(case(rois=4))
        assert found.config.solver.channels_last is faster and found.rois == 4


def test_own_settings_of_two_presets(capsys: pytest.CaptureFixture[str]) -> None:
    larger = ["proposals.post_nms_test=200", "proposals.pre_nms_test=200"]
    content = result(
        capsys, "inference", "--profile", "smoke", "--against", "grid-original", "--own-settings", "--repeats", "1",
        "--no-memory", "--set", *larger, "--against-set", *larger,
    )  # fmt: skip
    assert content["rois"] == [96, 125] and content["against"] == "grid-original"
    assert "125" in content["sources"]["grid-original"] and "3.4.3" in content["sources"]["cpm"]
    assert content["speed_table"]["printed_ratio"] == pytest.approx(0.29 / 0.14)


def test_rois_at_which_a_printed_ratio_would_hold() -> None:
    first, second = case(rois=10), case("grid-original", rois=20)
    rows = [
        {"name": "cpm", "median_s": 1.0},
        {"name": "grid-original", "median_s": 1.5},
        {"name": "grid-original: grid stage 1", "median_s": 0.8},
        {"name": "grid-original: decoding", "median_s": 0.2},
    ]
    found = detectors.speed_table({"rows": rows}, first, second)
    # 0.05 s per RoI: the second needs 0.29 / 0.14 - 0.5 s of RoIs.
    assert found["rois_needed"] == pytest.approx((0.29 / 0.14 - 0.5) / 0.05)
    rows[1]["median_s"] = 9.0
    assert detectors.speed_table({"rows": rows}, first, second)["rois_needed"] is None


def test_one_preset_under_other_settings(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["inference", "--profile", "smoke", "--against", "cpm", "--repeats", "1", "--no-memory", "--rois", "5"]
    content = result(capsys, *arguments, "--set", "solver.channels_last=true", "--dtype", "fp32")
    assert [row["name"] for row in content["rows"][1:3]] == ["cpm solver.channels_last=true", "cpm"]
    assert content["dtype"] == "fp32"


def test_precision() -> None:
    # Running it takes minutes where the CPU is not made for it.
    assert case(precision="bf16").bf16 and not case(precision="fp32").bf16
    config = presets.get("cpm", "quick")
    assert forced(config, "inference", 5).bf16 == has_bfloat16(torch.device("cpu"))


@pytest.mark.parametrize("work", ["inference", "training"])
def test_fast_paths_one_by_one(work: str, capsys: pytest.CaptureFixture[str]) -> None:
    content = result(capsys, "paths", "--work", work, "--profile", "smoke", "--rois", "4", "--repeats", "1")
    first, *others = content["rows"]
    assert first["name"] == "all fast paths" and first["ratio"] is None
    assert [row["name"] for row in others] == [*(f"without {name}" for name in switches.SWITCHES), "without any"]
    assert all(row["ratio"] > 0 and row["against"] == "all fast paths" for row in others)


@pytest.mark.parametrize("axis", ["rois", "stages", "batch", "area"])
def test_sweeps(axis: str, capsys: pytest.CaptureFixture[str]) -> None:
    size = ["--rois", "4", "--size", "128", "128"]
    content = result(capsys, "inference", "--profile", "smoke", "--sweep", axis, "--repeats", "1", *size)
    x = [row["x"] for row in content["rows"]]
    assert x == sorted(x) and len(x) == (3 if axis == "stages" else 4)
    assert content["fit"]["x"] == axis and content["fit"]["slope_s"] is not None
    entered = [row["stage_rois"] for row in content["rows"]]
    assert entered[-1] == ([16] * 3 if axis == "batch" else [4] * 3)
    assert entered[0] == {"rois": [1] * 3, "stages": [4], "batch": [4] * 3, "area": [4] * 3}[axis]


def test_training(capsys: pytest.CaptureFixture[str]) -> None:
    content = result(capsys, "training", "--profile", "smoke", "--repeats", "1", "--no-memory", "--batch", "2")
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["cpm"]["stage_rois"] == [8, 8, 8] and content["memory_ratio"] is None
    assert {"cpm: backward", "cpm: update", "cpm: heatmap targets", "torchvision: backward"} <= rows.keys()


def test_targets(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arguments = ["targets", "--profile", "smoke", "--rois", "6", "--repeats", "2"]
    content = result(capsys, *arguments)
    row = content["rows"][0]
    assert row["equal"] and row["against"] == "plain loop" and row["share_of_forward"] > 0
    assert [row["name"] for row in content["rows"]] == ["heatmap targets", "plain loop", "grid branch forward"]
    monkeypatch.setattr(heatmap_targets, "REFERENCE", tmp_path / "reference_targets.py")
    content = result(capsys, *arguments)
    assert "no plain loop" in content["note"] and content["rows"][0]["ratio"] is None
    assert "no plain loop" in "\n".join(report.conclusions(content))


def test_loading(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CPM_CACHE", str(tmp_path))
    brief = ["--workers", "0", "1", "--batches", "2", "--repeats", "1"]
    content = result(capsys, "loading", "shapes:smoke", "--profile", "smoke", *brief)
    rows = {row["name"]: row for row in content["rows"]}
    assert rows["1 workers"]["against"] == "0 workers" and 0 < content["decoding_share"] < 1
    assert rows["0 workers"]["images_per_s"] == pytest.approx(2 / rows["0 workers"]["median_s"])


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "inference", "--profile", "smoke", "--rois", "5", "--repeats", "1", "--no-memory"]) == 0
    text = capsys.readouterr().out
    assert "64 x 96" in text and "cpm: grid stage 3" in text and "cpm over torchvision: time" in text
    assert main(["bench", "targets", "--profile", "smoke", "--rois", "2", "--repeats", "1"]) == 0
    assert "times as fast as the loop; equal" in capsys.readouterr().out


def test_threads_are_given_back() -> None:
    before = torch.get_num_threads()
    with bench.threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["inference", "--preset", "cmp"], "unknown preset 'cmp'"),
        (["training", "--against", "grids"], "unknown preset 'grids'"),
        (["inference", "--rois", "1001"], "1000 proposals"),
        (["inference", "--profile", "smoke", "--own-settings", "--no-memory"], "cpm: 96 RoIs per image"),
        (["inference", "--profile", "smoke", "--sweep", "rois", "--rois", "1"], "one size makes no line"),
        (["inference", "--profile", "smoke", "--rois", "4", "--set", "backbone.name=resnet50"], "resnet50 has 256"),
        (["inference", "--profile", "smoke", "--set", "grid.chunk=0"], "grid.chunk is 0"),
        (["targets", "--preset", "faster"], "no grid branch"),
        (["training", "--rois", "129"], "128 positives"),
        (["inference", "--against-set", "solver.lr=1"], "name it with --against"),
        (["inference", "--profile", "smoke", "--rois", "4", "--set", "backbone.deformable=true"], "deformable"),
        (["loading", "nonsense"], "not a data source"),
        (["targets", "--device", "gpu"], "unknown device"),
    ],
)  # fmt: skip
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
