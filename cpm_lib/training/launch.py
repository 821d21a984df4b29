"""Starting a training as a child process, torchrun if there are several, from a notebook or a script."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from cpm_lib import presets
from cpm_lib.config import Config
from cpm_lib.data.shape_files import available_cores
from cpm_lib.errors import UserError
from cpm_lib.training.interruption import Interrupted

MEANINGS = {
    1: "exit code 1, an error of the program",
    2: "exit code 2, something to mend",
    130: "exit code 130, interrupted; the same call with resume=True goes on",
    143: "exit code 143, told to stop by SIGTERM; the same call with resume=True goes on",
    137: "killed, often because the memory was full; the same call with resume=True goes on after the last checkpoint",
}
"""What the exit code of a training means."""

SHUTDOWN_S = 600
"""Seconds torchrun waits for its processes to save after an interruption, before it kills them; its own are 30."""

PATIENCE = 3
"""Interruptions after which the child is killed: the first saves, the second leaves without."""


def launch(
    config: Config,
    data: str,
    out: str | Path,
    *,
    val: str | None = None,
    processes: int = 1,
    seed: int = 0,
    init: str | Path | None = None,
    resume: bool = False,
    options: Sequence[str] = (),
    quiet: bool = False,
) -> Path:
    """Train as `training.train` does, in `processes` new processes of this machine, and wait for the end.

    Their lines appear on standard output as they come. Ctrl-C, or a notebook's interruption, is passed on, so that
    the run is saved and can be resumed.

    Args:
        data, val: source texts, as for `cpm train`.
        options: further options of `cpm train`, e.g. ``("--workers", "4")``.
        quiet: show nothing.

    Returns:
        The path of `final.safetensors`.

    Raises:
        UserError: the training failed; its last line, and the meaning of its exit code.
        Interrupted: by Ctrl-C.
    """
    words = command(config, data, out, val=val, processes=processes, seed=seed, init=init, resume=resume)
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "CPM_PROGRESS": "0"}
    if processes > 1:
        # torchrun would give each process one thread, and say so.
        environment.setdefault("OMP_NUM_THREADS", str(max(1, available_cores() // processes)))
        environment.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN_S))
    code, lines, interrupted = _follow([*words, *options], environment, quiet)
    if code == 0:
        return Path(out) / "final.safetensors"
    last = _last_word(lines)
    if interrupted:
        raise Interrupted(last, signal.SIGINT)
    code = _exit_code(code, lines)
    raise UserError(f"the training stopped ({MEANINGS.get(code, f'exit code {code}')}): {last}")


def command(
    config: Config,
    data: str,
    out: str | Path,
    *,
    val: str | None = None,
    processes: int = 1,
    seed: int = 0,
    init: str | Path | None = None,
    resume: bool = False,
) -> list[str]:
    """The words of the command line that does the same as `launch`; the first is this Python."""
    words = [sys.executable]
    if processes > 1:
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words += ["-m", "cpm_lib", "train", "--preset", config.preset, "--profile", config.profile, "--data", data]
    words += ["--out", str(out), "--seed", str(seed)]
    for option, value in (("--val", val), ("--init", init)):
        if value is not None:
            words += [option, str(value)]
    return [*words, *(["--resume"] if resume else []), "--set", *settings(config)]


def settings(config: Config) -> list[str]:
    """What ``--set`` must say to make `config` of its preset and profile.

    The learning rate always belongs to it: `cpm train` scales one that is not given with the batch.
    """
    own, usual = _fields(config), _fields(presets.get(config.preset, config.profile))
    return [f"{key}={json.dumps(value)}" for key, value in own.items() if value != usual[key] or key == "solver.lr"]


def _fields(config: Config) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        fields |= {f"{name}.{key}": inner for key, inner in value.items()} if isinstance(value, dict) else {name: value}
    return fields


def _follow(words: Sequence[str], environment: dict[str, str], quiet: bool) -> tuple[int, list[str], bool]:
    """Run a command and show its lines; returns exit code, last lines, and whether it was interrupted from here."""
    lines: deque[str] = deque(maxlen=200)
    said, interruptions = False, 0
    # In a session of its own, because a terminal or a notebook interrupts all processes of its group at once, and
    # the second signal that then comes by way of torchrun would mean: leave without saving.
    child = subprocess.Popen(
        words,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert child.stdout is not None
    try:
        while True:
            try:
                for line in child.stdout:
                    lines.append(line)
                    said = said or _is_word(line)
                    # After the word of a process torchrun reports at length that it has failed.
                    if not quiet and (_is_word(line) or not said):
                        print(line, end="", flush=True)
                return child.wait(), list(lines), interruptions > 0
            except KeyboardInterrupt:
                interruptions += 1
                if interruptions >= PATIENCE:
                    raise
                child.send_signal(signal.SIGINT)
    finally:
        if child.poll() is None:
            child.kill()
        child.stdout.close()


def _is_word(line: str) -> bool:
    """Whether the command line said this about its end."""
    return line.startswith("cpm: ")


def _last_word(lines: Sequence[str]) -> str:
    """Why the training ended: what its command line said, else its last line."""
    said = next((line for line in lines if _is_word(line)), None)
    if said is not None:
        # The first of several processes to speak is the one that failed; the others only miss it.
        return re.sub(r"^cpm: (rank \d+: )?(error: )?", "", said.strip())
    own = takewhile(lambda line: "torch/distributed/elastic" not in line, lines)
    return next((line.strip() for line in reversed(list(own)) if line.strip()), "it said nothing")


def _exit_code(code: int, lines: Sequence[str]) -> int:
    """The exit code of the training: torchrun's own is 1, and its report names that of the first to fail."""
    reported = re.findall(r"exitcode\s*:\s*(-?\d+)", "".join(lines))
    code = int(reported[-1]) if reported else code
    return 128 - code if code < 0 else code
