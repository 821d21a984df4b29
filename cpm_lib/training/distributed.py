"""Several processes under torchrun; every function does nothing special in a single process."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from cpm_lib.errors import UserError

T = TypeVar("T")

# The main process makes or reads data and computes metrics while the others wait, which may outlast the default of
# ten minutes.
TIMEOUT = timedelta(hours=1)


def start(device: str | torch.device | None = None) -> torch.device:
    """Join the process group if torchrun started us, and choose the device.

    Args:
        device: "cpu", "cuda", "cuda:1"...; None means a GPU if there is one. Under torchrun each
            process of a machine takes the GPU of its local rank.

    Raises:
        UserError: unknown device, or a GPU is asked for and none is there.
    """
    try:
        place = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    except RuntimeError as error:
        raise UserError(f"unknown device '{device}'; use cpu, cuda or cuda:N") from error
    if place.type == "cuda":
        count = torch.cuda.device_count()
        index = int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else place.index or 0
        if index >= count:
            raise UserError(f"no device cuda:{index} ({count} GPUs found); use --device cpu or fewer processes")
        place = torch.device("cuda", index)
        torch.cuda.set_device(place)
    if "WORLD_SIZE" in os.environ and "RANK" in os.environ and not dist.is_initialized():
        # Processes that torchrun starts again must not find the addresses of those that are gone.
        store, own_rank, processes = next(rendezvous("env://", timeout=TIMEOUT))
        # Numbers of the host (stop requests, messages) travel by gloo, so that they never wait for the GPU.
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"start {_restarts()}", store),
            rank=own_rank,
            world_size=processes,
            timeout=TIMEOUT,
        )
    return place


def stop() -> None:
    """Leave the process group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def is_main() -> bool:
    """True in exactly one process: the one that prints and writes."""
    return rank() == 0


def restarted() -> bool:
    """Whether torchrun has started these processes again after a failure (``--max-restarts``)."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def processes_here() -> int:
    """Processes that share this machine's cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", str(world())))


def reduce_mean(values: Tensor) -> Tensor:
    """The mean of `values` over all processes, as a new tensor; all get it."""
    if world() == 1:
        return values
    values = values.clone()
    dist.all_reduce(values)
    return values / world()


def gather(value: T) -> list[T]:
    """The picklable `value` of every process, in the order of the ranks."""
    if world() == 1:
        return [value]
    values: list[Any] = [None] * world()
    dist.all_gather_object(values, value)
    return values


def on_main(function: Callable[[], T]) -> T:
    """Run `function` in the main process; all processes get its result, or raise its UserError."""
    if world() == 1:
        return function()
    message: list[Any] = [None, None]
    if is_main():
        try:
            message[0] = function()
        except UserError as error:
            message[1] = str(error)
    dist.broadcast_object_list(message, src=0)
    if message[1] is not None:
        raise UserError(message[1])
    return message[0]


def collect(function: Callable[[], T]) -> list[T]:
    """Run `function` in every process; the main one gets all results in the order of the ranks, the others none.

    Raises:
        UserError: in all processes if it was raised in one; the first rank's is told.
    """
    if world() == 1:
        return [function()]
    result, message = None, None
    try:
        result = function()
    except UserError as error:
        message = str(error)
    for told in gather(message):
        if told is not None:
            raise UserError(told)
    results: list[Any] = [None] * world() if is_main() else []
    dist.gather_object(result, results if is_main() else None)
    return results


class AnyProcess:
    """Lets all processes know a number that one of them has, without making any of them wait.

    `ask` returns the largest number given in the call before; all processes must call it equally often.
    """

    def __init__(self) -> None:
        self._pending: tuple[Any, Tensor] | None = None

    def ask(self, number: int) -> int:
        """Tell `number`; a single process gets it back at once."""
        if world() == 1:
            return number
        answer = self.close()
        told = torch.tensor(number)
        self._pending = (dist.all_reduce(told, dist.ReduceOp.MAX, async_op=True), told)
        return answer

    def close(self) -> int:
        """The answer that is still on its way."""
        if self._pending is None:
            return 0
        work, told = self._pending
        work.wait()
        self._pending = None
        return int(told)


def wrap(model: nn.Module, device: torch.device) -> nn.Module:
    """The model to call in training: gradients are averaged over the processes."""
    if world() == 1:
        return model
    return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)


def exchanging_gradients(network: nn.Module, now: bool) -> AbstractContextManager[Any]:
    """Around a backward pass: whether it averages gradients over the processes, or only adds to this one's."""
    return network.no_sync() if isinstance(network, DistributedDataParallel) and not now else nullcontext()


def share_buffers(model: nn.Module) -> None:
    """Give all processes the main one's buffers: each has gathered its own statistics of BatchNorm."""
    if world() > 1:
        for buffer in model.buffers():
            dist.broadcast(buffer, src=0)
