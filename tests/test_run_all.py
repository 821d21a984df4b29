"""The driver of `make test`: skipped is not passed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.run_all import Outcome, verdict

CASES = """
import pytest

def test_passes(): pass

def test_needs_something(): pytest.skip("no photographs")

def test_needs_the_same(): pytest.skip("no photographs")
"""


@pytest.fixture
def outcome(tmp_path: Path) -> Outcome:
    """What the driver reads from a run of one passing and two skipped tests."""
    (tmp_path / "test_cases.py").write_text(CASES)
    report = tmp_path / "report.xml"
    command = [sys.executable, "-m", "pytest", "-p", "no:nbval", "-c", "/dev/null", f"--junitxml={report}", tmp_path]
    assert subprocess.run(command, capture_output=True).returncode == 0
    result = Outcome()
    result.read(report)
    return result


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_skipped_tests_are_named_and_fail_in_ci(
    outcome: Outcome, ci: str, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CI", ci)
    assert verdict(outcome, 1.0) == code
    last = capsys.readouterr().out.splitlines()[-1]
    assert "1 tests passed" in last
    assert "NOT RUN" in last and "2 x no photographs" in last


def test_a_failed_step_fails_everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    assert verdict(Outcome(failed=["types"]), 1.0) == 1
