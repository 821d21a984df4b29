"""Settings: there and back as JSON, overrides with their types, and switches that are all documented."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpm_lib import config as module
from cpm_lib import presets
from cpm_lib.cli import main
from cpm_lib.config import CONVENTIONS, Config, Conventions
from cpm_lib.errors import UserError

SWITCHES = [field.name for field in dataclasses.fields(Conventions)]


# ---- JSON


@given(
    name=st.sampled_from(sorted(presets.PRESETS)),
    profile=st.sampled_from(sorted(presets.PROFILES)),
    conventions=st.sampled_from(sorted(CONVENTIONS)),
)
def test_json_there_and_back(name: str, profile: str, conventions: str) -> None:
    config = presets.get(name, profile, conventions)
    assert Config.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_files_there_and_back(tmp_path: Path) -> None:
    config = presets.get("table6-l1", "quick", "official").override({"solver.clip_norm": None, "grid.start_bias": -2})
    config.write(tmp_path / "config.json")
    assert Config.read(tmp_path / "config.json") == config
    # What a file leaves out has its default.
    (tmp_path / "config.json").write_text('{"solver": {"lr": 1}}')
    assert Config.read(tmp_path / "config.json") == Config().override({"solver.lr": 1.0})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"solver": {"lrr": 1}}', "unknown setting 'solver.lrr'; did you mean 'lr'"),
        ('{"solvers": {}}', "unknown setting 'solvers'; did you mean 'solver'"),
        ('{"solver": {"lr": "fast"}}', "solver.lr: 'fast' is not of type float"),
        ('{"solver": 3}', "solver: 3 is not of type SolverConfig"),
        ('{"cascade": {"mapping_ratios": [2.0]}}', "one value per stage"),
        ("{", "not a readable configuration"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        Config.read(tmp_path / "config.json")


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: not a readable configuration"):
        Config.read(tmp_path / "none.json")


# ---- overrides


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("solver.lr=1", 1.0),
        ("solver.lr=1e-3", 0.001),
        ("solver.iterations=7", 7),
        ("solver.steps=[3, 5]", (3, 5)),
        ("solver.steps=[]", ()),
        ("solver.clip_norm=null", None),
        ("solver.clip_norm=None", None),
        ("solver.clip_norm=2", 2.0),
        ("solver.weight_decay=paper", "paper"),
        ("solver.weight_decay=0.05", 0.05),
        ("backbone.caffe=true", True),
        ("backbone.caffe=True", True),
        ("backbone.name=resnet101", "resnet101"),
        ('backbone.name="resnet101"', "resnet101"),
        ("backbone.slim_widths=[1,2,3,4]", (1, 2, 3, 4)),
        ("conventions.rois_at_test=null", None),
        (" conventions.ism_target=input", "input"),
        ("detector=faster", "faster"),
    ],
)
def test_text_becomes_the_type_of_the_field(assignment: str, value: Any) -> None:
    found: Any = Config().override_text([assignment])
    for part in assignment.partition("=")[0].strip().split("."):
        found = getattr(found, part)
    assert found == value and type(found) is type(value)


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("solver.lr", "'solver.lr' is not of the form key=value, e.g. solver.lr=0.01"),
        ("solver.lrr=1", "unknown setting 'solver.lrr'; did you mean 'lr'?"),
        ("sollver.lr=1", "unknown setting 'sollver'; did you mean 'solver'?"),
        ("solver.xyzxyz=1", "unknown setting 'solver.xyzxyz'; choose from optimiser, lr"),
        ("detector.name=cpm", "detector has no field 'name'"),
        ("solver.lr=true", "solver.lr: True is not of type float"),
        ("solver.iterations=1.5", "solver.iterations: 1.5 is not of type int"),
        ("solver.iterations=true", "solver.iterations: True is not of type int"),
        ("backbone.caffe=1", "backbone.caffe: 1 is not of type bool"),
        ("backbone.name=resnet51", "backbone.name: 'resnet51' is not possible; did you mean 'resnet50'?"),
        ("backbone.slim_widths=[1,2]", "backbone.slim_widths: [1, 2] is not of type tuple"),
        ("solver.steps=[1.5]", "solver.steps: 1.5 is not of type int"),
        ("solver=fast", "solver: 'fast' is not of type SolverConfig"),
        ("cascade.mapping_ratios=[2.0]", "one value per stage"),
        ("grid.points=1", "at least 2 points per side"),
    ],
)
def test_mistakes_are_named_with_a_hint(assignment: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        Config().override_text([assignment])


def test_overrides_leave_the_original_alone_and_come_together() -> None:
    config = Config()
    stages = {"mapping_ratios": (2.0,), "iou_thresholds": (0.5,), "stage_weights": (1.0,)}
    # All fields of a part change at once: half way the numbers of stages would not agree.
    changed = config.override({**{f"cascade.{k}": v for k, v in stages.items()}, "preset": "one"})
    assert (changed.cascade.stages, changed.preset) == (1, "one")
    assert config == Config() and config.override({}) == config
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.preset = "other"  # type: ignore[misc]


# ---- conventions


def docstrings(cls: type) -> dict[str, str]:
    """The strings that stand right after the fields of a dataclass."""
    body = ast.parse(inspect.getsource(cls)).body[0].body  # type: ignore[attr-defined]
    found = {}
    for field, after in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            found[field.target.id] = str(after.value.value)  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("switch", SWITCHES)
def test_every_switch_says_what_it_does_and_where_it_comes_from(switch: str) -> None:
    text = docstrings(Conventions)[switch]
    assert re.search(r"\(facts \d+(\.\d+)?(, \d+(\.\d+)?)*\)\.$", text), "ends with the section of the facts sheet"
    assert len(text.split()) >= 20, "what it is and what its effect is"
    assert all(len(line) <= 120 for line in text.splitlines())


def test_conventions_differ_in_every_switch_but_one() -> None:
    corrected, official = CONVENTIONS["corrected"], CONVENTIONS["official"]
    same = [switch for switch in SWITCHES if getattr(corrected, switch) == getattr(official, switch)]
    # Both append the ground truth; the switch is for small profiles.
    assert same == ["gt_append"]
    assert Config().conventions == corrected and official == module.OFFICIAL


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_single_flip_is_a_configuration(switch: str) -> None:
    value = getattr(CONVENTIONS["official"], switch)
    flipped = Config().override({f"conventions.{switch}": value})
    assert getattr(flipped.conventions, switch) == value
    assert dataclasses.replace(flipped.conventions, **{switch: getattr(Conventions(), switch)}) == Conventions()


def test_info_prints_the_mix(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["info", "cpm", "--profile", "smoke", "--num-classes", "7", "--conventions", "official"]
    command += ["--set", "conventions.clip_boxes=true"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = [line.split(maxsplit=2) for line in lines[lines.index("conventions:") + 1 :]]
    sides = {switch: (value, side) for switch, value, side in printed}
    assert list(sides) == SWITCHES
    assert sides["pixel_plus_one"] == ("True", "official") and sides["clip_boxes"] == ("True", "corrected")
    assert sides["rois_at_test"] == ("None", "official") and sides["gt_append"] == ("0.2", "of its own")
    assert main([*command, "--json", "-"]) == 0
    conventions = json.loads(capsys.readouterr().out)["conventions"]
    assert list(conventions) == SWITCHES and conventions["clip_boxes"] and conventions["ism_target"] == "input"
