"""pyproject.toml, constraints.txt and environment.yml say the same; the library needs nothing of Jupyter."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cpm_lib import environment


@pytest.fixture(scope="module")
def project(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())["project"]


@pytest.fixture(scope="module")
def needed(project: dict[str, Any]) -> list[Requirement]:
    extras = [text for group in project["optional-dependencies"].values() for text in group]
    return [Requirement(text) for text in (*project["dependencies"], *extras)]


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, str]:
    lines = [line for line in (root / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9a-z.]+", line) for line in lines), "constraints are exact pins"
    return dict(line.split("==") for line in lines)


def test_every_dependency_is_pinned_within_its_bounds(needed: list[Requirement], pins: dict[str, str]) -> None:
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{name} has no version in constraints.txt"
        assert requirement.specifier.contains(pins[name]), f"{requirement} excludes {pins[name]} of constraints.txt"


def test_the_library_itself_has_lower_bounds_only(project: dict[str, Any]) -> None:
    for text in project["dependencies"]:
        assert [part.operator for part in Requirement(text).specifier] == [">="], text


def test_conda_takes_everything_from_the_same_lists(root: Path, project: dict[str, Any]) -> None:
    dependencies = yaml.safe_load((root / "environment.yml").read_text())["dependencies"]
    extras = ",".join(sorted(project["optional-dependencies"]))
    pip = {"pip": ["--constraint constraints.txt", f"--editable .[{extras}]"]}
    assert dependencies == [f"python{project['requires-python']}", "pip", pip]


def test_each_dependency_has_its_reason_in_contributing(root: Path, needed: list[Requirement]) -> None:
    text = (root / "CONTRIBUTING.md").read_text()
    missing = [requirement.name for requirement in needed if f"`{requirement.name}`" not in text]
    assert not missing


def test_versions_agree(root: Path, project: dict[str, Any]) -> None:
    assert yaml.safe_load((root / "CITATION.cff").read_text())["version"] == project["version"]
    assert "## Unreleased" in (root / "CHANGELOG.md").read_text()


def test_torchvision_fits_torch() -> None:
    boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 9.0]])
    assert torchvision.ops.nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist() == [1]


def test_import_needs_nothing_of_jupyter(root: Path) -> None:
    program = "import sys, cpm_lib; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)
    assert not {"IPython", "ipywidgets", "jupyter_core", "nbformat", "papermill", "sphinx"} & {*loaded.stdout.split()}


def test_bfloat16_only_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    for features, wanted in (({"amx_bf16": True}, True), ({"avx512_bf16": True}, True), ({"avx2": True}, False)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda features=features: features)
        assert environment.has_bfloat16(cpu) is wanted
        layer, pixels = torch.nn.Linear(2, 2), torch.ones(1, 2)
        with environment.autocast(cpu, "bf16"):
            assert layer(pixels).dtype == (torch.bfloat16 if wanted else torch.float32)
        with environment.autocast(cpu, "fp32"):
            assert layer(pixels).dtype == torch.float32
