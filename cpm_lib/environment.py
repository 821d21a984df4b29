"""What a run depends on besides its configuration: versions, device, threads, state of the source."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "torchvision", "numpy", "pycocotools", "safetensors", "Pillow", "matplotlib", "tqdm")


def git_state() -> dict[str, Any]:
    """`{"sha": str | None, "dirty": bool | None}` of the source tree this package is run from."""
    folder = Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        command = ["git", "-C", str(folder), *arguments]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return answer.stdout.strip() if answer.returncode == 0 else None

    # An installed package may lie inside somebody else's repository: that one's state says nothing.
    if git("ls-files", "--error-unmatch", "cpm_lib/config.py") is None:
        return {"sha": None, "dirty": None}
    status = git("status", "--porcelain")
    return {"sha": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def versions() -> dict[str, str]:
    """Version of Python and of each package the library needs; "missing" if not installed."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "missing"
    return found


def describe() -> dict[str, Any]:
    """Everything `cpm env` prints and `run.json` keeps; plain types only."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "gpus": gpus,
        "cuda": torch.version.cuda if gpus else None,
        "git": git_state(),
    }


def has_bfloat16(device: torch.device) -> bool:
    """Whether the device itself multiplies in bfloat16; without that a CPU takes 4 to 8 times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Older releases of torch cannot tell, and float32 is always right.
    capabilities: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(bool(capabilities.get(name)) for name in ("amx_bf16", "avx512_bf16"))


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context of a forward pass: bfloat16 if `precision` is "bf16" and the device is made for it, else float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and has_bfloat16(device))


def make_deterministic() -> None:
    """Only operations that give the same bits each time, for this process and before its first use of a GPU.

    On a GPU the backward pass of RoIAlign adds in any order otherwise; torchvision then takes a slower way.
    The CPU's operations are repeatable without it.

    Raises:
        RuntimeError: by torch, later, if an operation has no such form on the device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def memory_gb(device: torch.device) -> float:
    """Highest memory used so far, in GB: of the GPU if `device` is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e9 if platform.system() == "Darwin" else peak * 1024 / 1e9
