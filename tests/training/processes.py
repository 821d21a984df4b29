"""Real processes for the training tests, alone or as a group, without the seconds a fresh import of torch takes."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# Children are forked from a helper that has imported the library but started no thread.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["cpm_lib.training.trainer", "cpm_lib.commands", "cpm_lib.cli"])
SECONDS = 240


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(function: Callable[..., Any], world: int, *arguments: Any) -> tuple[list[BaseProcess], list[Any]]:
    """Begin `function(*arguments)` in `world` processes, as torchrun would (world 0: one process without it).

    Returns:
        the processes, and for each the end of a pipe on which its result arrives.
    """
    port, processes, answers = free_port(), [], []
    for rank in range(max(world, 1)):
        receiver, sender = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=_child, args=(sender, function, arguments, rank, world, port))
        process.start()
        sender.close()
        processes.append(process)
        answers.append(receiver)
    return processes, answers


def run(function: Callable[..., Any], world: int, *arguments: Any) -> list[Any]:
    """The results of `function(*arguments)` in all processes, in the order of the ranks."""
    processes, answers = start(function, world, *arguments)
    results = []
    for answer in answers:
        assert answer.poll(SECONDS), "a process does not answer"
        results.append(pickle.loads(answer.recv_bytes()))
    for process in processes:
        process.join(SECONDS)
    for result in results:
        if isinstance(result, str) and result.startswith("Traceback"):
            raise AssertionError(result)
    return results


def _child(
    sender: Any, function: Callable[..., Any], arguments: Sequence[Any], rank: int, world: int, port: int
) -> None:
    import torch

    from cpm_lib.training import distributed

    torch.set_num_threads(1)
    # Workers that read images are forked, as in a process started from a shell.
    multiprocessing.set_start_method("fork", force=True)
    if world:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    try:
        if world:
            distributed.start("cpu")
        # Plain pickle: a pipe's own way would share tensors with a process that ends now.
        sender.send_bytes(pickle.dumps(function(*arguments)))
        distributed.stop()
    except BaseException:
        sender.send_bytes(pickle.dumps(traceback.format_exc()))
        raise


def cpm(arguments: Sequence[str], cache: Path, largest_file: int | None = None) -> tuple[int, str]:
    """One `cpm` command line: its exit code and what it printed.

    Args:
        largest_file: bytes after which no file can grow any more, as on a full disk.
    """
    from cpm_lib import cli

    os.environ["CPM_CACHE"] = str(cache)
    if largest_file is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        code = cli.main(arguments)
    return code, printed.getvalue()


def lines(run: Path) -> int:
    """Iterations noted in `metrics.jsonl` of a run folder so far."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0
