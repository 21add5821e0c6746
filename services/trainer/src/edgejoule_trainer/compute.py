"""How training is computed: on which device, in which form; never what it computes.

On a CPU a run gives equal bytes each time, on CUDA with ``deterministic``. Between devices the sums are taken in
another order, and nothing else differs: the data, their order and their augmentation are functions of
(seed, iteration), and TF32, which rounds factors to 10 bits, is off unless ``mixed_precision`` is asked for.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from edgejoule.errors import UnsupportedError
from edgejoule_agent import cpu

DeviceName = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True)
class Compute:
    """What to compute with.

    device: ``auto`` takes CUDA where there is some. mixed_precision: convolutions in bfloat16, or in float16 with
    loss scaling where the device has no bfloat16; losses stay in float32. channels_last: memory layout NHWC, where it
    can be had (``memory_format``). workers: threads that decode and augment images. deterministic: refuse kernels
    whose result varies.
    """

    device: DeviceName = "auto"
    mixed_precision: bool = False
    channels_last: bool = False
    workers: int = 1
    deterministic: bool = False


ON_CPU = Compute(device="cpu")

# Parameters of mallopt(3), by the numbers in glibc's malloc.h.
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def prepare_process(threads: int) -> None:
    """Make this process one that trains: torch computes with so many threads, and freed memory is kept.

    glibc maps each large tensor anew and unmaps it when it is freed, so in every iteration the kernel clears all of
    those pages again. Kept, an iteration took between 5 and 35 % less time (AMD EPYC, 2 threads; SSD-MobileNetV2 gains
    the most), and the process was not larger at its peak.
    """
    torch.set_num_threads(threads)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        for parameter, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 2**28)):
            mallopt(parameter, value)


def choose_device(name: DeviceName) -> torch.device:
    """The device of that name.

    Raises:
        UnsupportedError: CUDA was asked for, and there is none.
    """
    available = torch.cuda.is_available()
    if name == "cuda" and not available:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA at all"
        raise UnsupportedError(
            f"device cuda was asked for, but this torch {torch.__version__} was built for {built} and finds no such "
            "device; say device: auto or cpu, or install a CUDA build of torch beside its driver"
        )
    return torch.device("cuda" if name != "cpu" and available else "cpu")


def describe(device: torch.device) -> dict[str, str]:
    """The device as records have it."""
    if device.type == "cuda":
        return {"kind": "cuda", "name": torch.cuda.get_device_name(device), "torch": torch.__version__}
    return {"kind": "cpu", "name": cpu.name(), "torch": torch.__version__}


def half_type(device: torch.device) -> torch.dtype:
    """What mixed precision computes in: bfloat16, which needs no loss scaling, wherever the device has it."""
    return torch.bfloat16 if device.type == "cpu" or torch.cuda.is_bf16_supported() else torch.float16


def memory_format(device: torch.device, compute: Compute) -> torch.memory_format:
    """The layout of maps and weights. On a CPU bfloat16 and NHWC do not go together.

    There torch 2.13 gives NaN for depthwise convolutions: SSD-MobileNetV2's loss became NaN within ten iterations in 7
    runs of 8, and in none with either of the two alone.
    """
    unsound = device.type == "cpu" and compute.mixed_precision
    return torch.channels_last if compute.channels_last and not unsound else torch.contiguous_format


def place(module: nn.Module, device: torch.device, compute: Compute) -> None:
    """Move ``module`` to where and how it is computed, in place."""
    module.to(device)
    module.to(memory_format=memory_format(device, compute))  # type: ignore[call-overload]


@contextmanager
def settings(device: torch.device, compute: Compute) -> Iterator[None]:
    """torch's own switches, as ``compute`` wants them, and as they were afterwards."""
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.backends.cudnn.benchmark,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cuda.matmul.allow_tf32,
    )
    if device.type == "cuda" and compute.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is not deterministic without
    torch.use_deterministic_algorithms(compute.deterministic)
    torch.backends.cudnn.benchmark = not compute.deterministic
    torch.backends.cudnn.allow_tf32 = compute.mixed_precision
    torch.backends.cuda.matmul.allow_tf32 = compute.mixed_precision
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark, torch.backends.cudnn.allow_tf32 = before[1:3]
        torch.backends.cuda.matmul.allow_tf32 = before[3]
