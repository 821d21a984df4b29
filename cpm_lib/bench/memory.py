"""Peak memory of a case, in a process of its own."""

from __future__ import annotations

from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from cpm_lib.bench.case import Case, Running
from cpm_lib.errors import UserError


def peak_mb(case: Case, threads: int) -> float | None:
    """What a case adds to the memory of a process at its highest, in MB of 10^6 bytes.

    Measured in a fresh process that does nothing else: an allocator keeps what it once had. On a GPU the most that
    torch had allocated; on Linux the highest resident memory (`VmHWM`) less that with all libraries loaded and no
    detector built; None elsewhere.

    Raises:
        UserError: the process ended early, for lack of memory.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_peak, args=(sender, case, threads), daemon=True)
    process.start()
    sender.close()
    try:
        found: float | None = receiver.recv()
    except EOFError as error:
        raise UserError(
            f"{case.name}: the process that measures memory ended early; use a smaller --size or --no-memory"
        ) from error
    finally:
        process.join()
    return found


def _send_peak(sender: Connection, case: Case, threads: int) -> None:
    torch.set_num_threads(threads)
    before = _resident_mb("VmRSS")
    running = Running(case)
    for _ in range(2 if case.work == "training" else 1):  # the first step has no momentum yet
        running()
    if running.device.type == "cuda":
        torch.cuda.synchronize(running.device)
        sender.send(torch.cuda.max_memory_allocated(running.device) / 1e6)
        return
    highest = _resident_mb("VmHWM")
    sender.send(None if highest is None or before is None else highest - before)


def _resident_mb(field: str) -> float | None:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(f"{field}:")), None)
