"""The `cpm` command as a user types it: results, formats, exit codes, one line for each mistake."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import cpm_lib.model
from cpm_lib.cli import main
from cpm_lib.detect import _names
from cpm_lib.training import checkpoint

METRICS = ["AP", "AP50", "AP75", "AP90", "APS", "APM", "APL"]
TRAIN = ["train", "--preset", "cpm", "--profile", "smoke", "--data", "shapes:smoke"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Generated data goes to a folder of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CPM_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six iterations; its detections are bad, their format is not."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main([*TRAIN, "--val", "shapes:smoke:val", "--out", str(folder)]) == 0
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    generator = torch.Generator().manual_seed(0)
    for name, size in (("a.png", (80, 60)), ("b.jpg", (50, 90))):
        pixels = torch.randint(0, 255, (size[1], size[0], 3), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def shell(root: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    # As many threads as here: other sums of floats are rounded otherwise.
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    command = [sys.executable, "-m", "cpm_lib", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options
    )


@pytest.fixture
def mistake(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a command that must end with code 2 and one line; returns the line."""

    def check(*arguments: Any) -> str:
        capsys.readouterr()
        assert main([str(argument) for argument in arguments]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1 and lines[0].startswith("cpm: error: "), lines
        return lines[0]

    return check


# ---- through the real command line


def test_help_and_unknown_preset_are_quick(root: Path) -> None:
    answer = shell(root, "--help")
    assert "detect" in answer.communicate()[0] and answer.returncode == 0
    answer = shell(root, "info", "cpm-r1001")
    error = answer.communicate()[1]
    assert (answer.returncode, error) == (2, "cpm: error: unknown preset 'cpm-r1001'; did you mean 'cpm-r101'?\n")
    program = "import sys, cpm_lib.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == 0


def test_reader_that_has_seen_enough(root: Path) -> None:
    answer = shell(root, "presets")
    assert answer.stdout is not None and answer.stderr is not None
    answer.stdout.readline()
    answer.stdout.close()
    error = answer.stderr.read()
    assert (answer.wait(), error) == (0, "")


def test_sigterm_leaves_a_resumable_run(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    command = [*TRAIN, "--preset", "faster", "--iterations", "40", "--set", "solver.checkpoint_every=1000"]
    process = shell(root, *command, "--out", str(stopped))
    metrics = stopped / "metrics.jsonl"
    while process.poll() is None and (not metrics.exists() or metrics.read_text().count("\n") < 3):
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate()
    assert process.returncode == 143, error
    assert error.startswith("cpm: interrupted") and "--resume" in error and error.count("\n") == 1
    assert len(checkpoint.state_files(stopped)) == 1 and not (stopped / "final.safetensors").exists()
    assert main([*command, "--out", str(stopped), "--resume"]) == 0
    assert main([*command, "--out", str(whole)]) == 0
    assert metrics.read_bytes() == (whole / "metrics.jsonl").read_bytes()
    left, right = checkpoint.read_weights(stopped), checkpoint.read_weights(whole)
    assert all(torch.equal(left[name], right[name]) for name in left)


def test_evaluation_through_the_shell(root: Path, run: Path, tmp_path: Path) -> None:
    command = ["eval", str(run), "--data", "shapes:smoke:val", "--json", str(tmp_path / "eval.json")]
    answer = shell(root, *command)
    output, error = answer.communicate()
    assert answer.returncode == 0, error
    assert "stage  score" in output
    content = json.loads((tmp_path / "eval.json").read_text())
    assert list(content) == ["preset", "data", "gamma", "n_images", "rows"]
    assert (content["preset"], content["data"], content["gamma"]) == ("cpm", "shapes:smoke:val", 0.8)
    assert [list(row) for row in content["rows"]] == [["stage", "score", *METRICS]]
    assert content["rows"][0]["score"] == "fused" and content["n_images"] == 12


# ---- evaluation


def evaluated(capsys: pytest.CaptureFixture[str], run: Path, *options: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["eval", str(run), "--data", "shapes:smoke:val", "--json", "-", *options]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_stage_and_score(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = evaluated(capsys, run, "--stages", "all")
    rows = [(row["stage"], row["score"]) for row in content["rows"]]
    assert rows == [(1, "cls"), (2, "cls"), (3, "cls"), (3, "cls_ism"), (3, "cls_rsm"), (3, "fused")]
    assert evaluated(capsys, run)["rows"] == content["rows"][-1:]
    for row in content["rows"]:
        assert all(row[name] is None or 0 <= row[name] <= 100 for name in METRICS)


def test_options_of_the_evaluation(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert evaluated(capsys, run, "--gamma", "0.5")["gamma"] == 0.5
    # With gamma 1 the RSM has no say: the fused score is that of ISM and classification.
    last = {row["score"]: row for row in evaluated(capsys, run, "--stages", "all", "--gamma", "1")["rows"]}
    assert last["fused"]["AP"] == last["cls_ism"]["AP"]
    for option in ("linear", "gaussian"):
        assert evaluated(capsys, run, "--soft-nms", option)["rows"][0]["score"] == "fused"
    limits = []
    load = checkpoint.load

    def spy(*arguments: Any, **options: Any) -> Any:
        model = load(*arguments, **options)
        limits.append(model.config.conventions.rois_at_test)
        return model

    monkeypatch.setattr(checkpoint, "load", spy)
    for option in ("0", "1"):
        evaluated(capsys, run, "--rois", option)
    assert limits == [None, 1]


def test_gamma_without_a_rescoring_module(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trunk = str(root / "data/checkpoints/trunk.safetensors")
    assert main(["eval", trunk, "--data", "shapes:smoke:val", "--gamma", "0.5"]) == 0
    assert "faster has no RSM to be weighed" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["eval", "run", "--data", "shapes:smoke:val", "--gamma", "2"], "2 is not between 0 and 1; see cpm eval"),
        (["info", "--preset", "cpm"], "unrecognized arguments: --preset; see cpm --help"),
        (["bench"], "required: WHAT; see cpm bench --help"),
    ],
)
def test_misunderstood_options_take_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    with pytest.raises(SystemExit) as refused:
        main(arguments)
    lines = capsys.readouterr().err.splitlines()
    assert refused.value.code == 2
    assert len(lines) == 1 and lines[0].startswith("cpm: error: ") and words in lines[0]


def test_other_classes_than_the_checkpoint(run: Path, tmp_path: Path, mistake: Callable[..., str]) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png")
    coco = {
        "images": [{"id": 1, "file_name": "x.png", "width": 8, "height": 8}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 4, 4]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "ann.json").write_text(json.dumps(coco))
    source = f"coco:{tmp_path / 'ann.json'},{tmp_path}"
    line = mistake("eval", run, "--data", source)
    assert (
        "classes differ" in line and "6 (disk" in line and "1 (cat only there)" in line and "cpm train --init" in line
    )
    line = mistake(*TRAIN, "--val", source, "--out", tmp_path / "run")
    assert "classes differ: --data" in line and not (tmp_path / "run").exists()


# ---- detection


def test_detect(run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["detect", str(run), str(pictures), "--out", str(out), "--score", "0.001"]) == 0
    assert sorted(path.name for path in out.iterdir()) == ["a.png", "b.png", "detections.json"]
    found = json.loads((out / "detections.json").read_text())
    assert [Path(entry["file"]).name for entry in found] == ["a.png", "b.jpg"]
    assert [(entry["width"], entry["height"]) for entry in found] == [(80, 60), (50, 90)]
    for entry in found:
        assert list(entry) == ["file", "width", "height", "detections"]
        assert entry["detections"]
        for detection in entry["detections"]:
            keys = ["box", "label", "class", "score", "cls_score", "iou_score", "rsm_score"]
            assert list(detection) == keys
            x1, y1, x2, y2 = detection["box"]
            assert 0 <= x1 <= x2 <= entry["width"] and 0 <= y1 <= y2 <= entry["height"]
    # Drawn enlarged, with something drawn.
    with Image.open(out / "a.png") as drawn:
        assert drawn.size == (560, 420)


def test_detect_with_another_gamma(run: Path, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["detect", str(run), str(pictures), "--out", str(out), "--score", "0", "--gamma", "0"]) == 0
    found = [each for entry in json.loads((out / "detections.json").read_text()) for each in entry["detections"]]
    # Eq. 4: at gamma 0 only the RSM counts.
    assert found
    assert all(each["score"] == pytest.approx(each["rsm_score"]) for each in found)


@pytest.mark.parametrize("command", ["eval", "detect"])
def test_compiling_is_asked_for(
    run: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    compiled: list[str] = []
    # Compiling itself takes minutes; `tests/model/test_compiling.py` is about it.
    monkeypatch.setattr(cpm_lib.model, "compile_backbone", lambda model: compiled.append(model.config.preset))
    rest = {"eval": ["--data", "shapes:smoke:val"], "detect": [str(pictures), "--out", str(tmp_path / "out")]}
    assert main([command, str(run), *rest[command]]) == 0
    assert not compiled
    assert main([command, str(run), *rest[command], "--compile"]) == 0
    assert compiled == ["cpm"]


def test_pictures_by_glob_and_with_the_same_name(run: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "a.png").write_bytes((pictures / "a.png").read_bytes())
    arguments = [str(pictures / "*"), str(tmp_path / "more" / "a.png")]
    assert main(["detect", str(run), *arguments, "--out", str(tmp_path / "out")]) == 0
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["a-1.png", "a-2.png", "b.png", "detections.json"]


def test_drawn_pictures_never_replace_the_ones_that_were_read(
    run: Path, pictures: Path, mistake: Callable[..., str]
) -> None:
    before = (pictures / "a.png").read_bytes()
    assert f"{pictures / 'a.png'}: is one of the pictures" in mistake("detect", run, pictures, "--out", pictures)
    assert (pictures / "a.png").read_bytes() == before and not (pictures / "detections.json").exists()


def test_names_of_drawn_pictures_differ() -> None:
    files = [Path(name) for name in ("x/a.jpg", "y/a.jpg", "x/a-1.jpg", "b.png")]
    assert _names(files) == ["a-2.png", "a-3.png", "a-1.png", "b.png"]


def test_bad_pictures_leave_nothing_behind(
    run: Path, pictures: Path, tmp_path: Path, mistake: Callable[..., str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes((pictures / "b.jpg").read_bytes()[:400])
    out = tmp_path / "out"
    assert f"{broken}: cannot be decoded" in mistake("detect", run, pictures / "a.png", broken, "--out", out)
    assert "no such image" in mistake("detect", run, pictures / "a.png", tmp_path / "none.jpg", "--out", out)
    (tmp_path / "empty").mkdir()
    assert "no picture here" in mistake("detect", run, tmp_path / "empty", "--out", out)
    assert not out.exists()


def test_folder_that_must_not_be_read(
    run: Path, pictures: Path, tmp_path: Path, mistake: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> Any:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert f"{pictures}: Permission denied" in mistake("detect", run, pictures, "--out", tmp_path / "out")


# ---- mistakes


def test_mistakes_come_before_a_measurement(tmp_path: Path, mistake: Callable[..., str]) -> None:
    small = ["bench", "inference", "--profile", "smoke"]
    assert "--sweep has no other side" in mistake(*small, "--sweep", "rois", "--own-settings")
    assert "faster has no grid stages" in mistake(*small, "--preset", "faster", "--sweep", "stages")
    assert "--compile is for detecting" in mistake("bench", "paths", "--profile", "smoke", "--compile")
    assert "record id 'Big Words'" in mistake(*small, "--record", "Big Words")
    assert f"{tmp_path}: cannot be written (it is a folder)" in mistake(*small, "--json", tmp_path)
    (tmp_path / "file").write_text("")
    assert "cannot be written (Not a directory)" in mistake(*small, "--json", tmp_path / "file/x.json")


def test_mistakes_in_training(run: Path, tmp_path: Path, mistake: Callable[..., str]) -> None:
    out = tmp_path / "out"
    assert "did you mean 'cpm'?" in mistake("train", "--preset", "cpn", "--data", "shapes:smoke", "--out", out)
    assert "did you mean 'smoke'?" in mistake(*TRAIN[:3], "--profile", "smok", "--data", "shapes:smoke", "--out", out)
    assert "'solver.lrr'; did you mean 'lr'?" in mistake(*TRAIN, "--out", out, "--set", "solver.lrr=1")
    assert "not of type float" in mistake(*TRAIN, "--out", out, "--set", "solver.lr=fast")
    assert "at least 1" in mistake(*TRAIN, "--out", out, "--iterations", "0")
    assert "shapes:PROFILE" in mistake(*TRAIN[:-1], "nonsense", "--out", out)
    assert "no such checkpoint" in mistake(*TRAIN, "--out", out, "--init", tmp_path / "none.safetensors")
    assert "unknown device 'gpu'" in mistake(*TRAIN, "--out", out, "--device", "gpu")
    assert not out.exists()
    assert "already holds a run; continue it with --resume" in mistake(*TRAIN, "--out", run)
    assert "solver.lr was 0.002 and is now 1.0" in mistake(*TRAIN, "--out", run, "--resume", "--set", "solver.lr=1")
    (tmp_path / "file").write_text("")
    assert "is a file, not a folder" in mistake(*TRAIN, "--out", tmp_path / "file" / "run")


def test_mistakes_with_checkpoints(run: Path, pictures: Path, tmp_path: Path, mistake: Callable[..., str]) -> None:
    (tmp_path / "no.safetensors").write_text("?")
    for command in (["eval", "--data", "shapes:smoke:val"], ["detect", str(pictures), "--out", str(tmp_path / "out")]):
        name, *rest = command
        assert "no such checkpoint" in mistake(name, tmp_path / "missing", *rest)
        assert "not a readable checkpoint" in mistake(name, tmp_path / "no.safetensors", *rest)
    assert "not a run folder" in mistake("plot", tmp_path)


def test_traceback_for_developers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(tmp_path), "--traceback"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_without_training(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from cpm_lib import environment

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(environment, "describe", interrupt)
    assert main(["env"]) == 130
    assert capsys.readouterr().err == "cpm: interrupted\n"


# ---- the other commands


def test_env(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["env", "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert set(content["git"]) == {"sha", "dirty"} and content["threads"] >= 1
    assert main(["env"]) == 0
    assert "torchvision" in capsys.readouterr().out


def test_presets(capsys: pytest.CaptureFixture[str]) -> None:
    from cpm_lib import presets

    assert main(["presets", "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert [entry["name"] for entry in content] == list(presets.PRESETS)
    assert all({"cost", "expected", "tolerance", "command", "hardware"} <= entry.keys() for entry in content)
    assert main(["presets"]) == 0
    assert "quick" in capsys.readouterr().out


def test_info(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["info", "cpm", "--profile", "smoke", "--num-classes", "7"]
    assert main([*command, "--json", "-"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["parameters"] > 0
    assert sum(content["gmac"].values()) == pytest.approx(content["total_gmac"])
    assert main(command) == 0
    assert "parameters" in capsys.readouterr().out


def test_data_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = tmp_path / "made"
    assert main(["data", "shapes", "--profile", "smoke", "--out", str(made), "--workers", "0"]) == 0
    source = capsys.readouterr().out.splitlines()[0]
    checked = ["data", "check", source, "--out", str(tmp_path / "drawn"), "--json", str(tmp_path / "check.json")]
    assert main(checked) == 0
    assert "objects" in capsys.readouterr().out and list((tmp_path / "drawn").glob("*.png"))
    assert json.loads((tmp_path / "check.json").read_text())["images"] == 24
    broken = next((made / "train").glob("*.png"))
    broken.write_bytes(broken.read_bytes()[:50])
    assert main(["data", "check", source]) == 1


def test_plot(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plot", str(run)]) == 0
    assert capsys.readouterr().out.strip() == str(run / "curves.png")
    with Image.open(run / "curves.png") as curves:
        assert min(curves.size) > 300
