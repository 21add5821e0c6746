"""The most arithmetic that a device can do, from what it says of itself: a bound that no measurement may pass.

Rates are generous on purpose, every unit busy in every clock: what is above them cannot be. Sources: [cuda] CUDA C++
Programming Guide, throughput of arithmetic instructions; [specs] NVIDIA's data sheets of the modules; [simd] the width
of vector units times two for a fused multiply-add times the most such units that any core has.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

OPS_PER_CORE_CLOCK: Mapping[str, Mapping[str, int]] = {
    "5.3": {"fp32": 2, "fp16": 4},  # [cuda] no dp4a
    "6.2": {"fp32": 2, "fp16": 4},  # [cuda] no dp4a
    "7.2": {"fp32": 2, "fp16": 16, "int8": 32},  # [specs] 22 INT8 TOPS of AGX Xavier's 512 cores at 1.377 GHz
    "8.7": {"fp32": 8, "fp16": 16, "int8": 32},  # [specs] dense; TensorRT may run fp32 as TF32, at half of fp16
}
"""By compute capability and precision: operations of one CUDA core in a clock, tensor cores included."""

GPU_CORES: Mapping[str, int] = {
    "Jetson Nano 4 GB": 128,
    "Jetson Nano 2 GB": 128,
    "Jetson TX2": 256,
    "Jetson TX2 NX": 256,
    "Jetson Xavier NX": 384,
    "Jetson AGX Xavier": 512,
    "Jetson AGX Xavier Industrial": 512,
    "Jetson Orin Nano 8 GB": 1024,
    "Jetson Orin Nano 4 GB": 512,
    "Jetson Orin NX 16 GB": 1024,
    "Jetson Orin NX 8 GB": 1024,
    "Jetson AGX Orin 64 GB": 2048,
    "Jetson AGX Orin 32 GB": 1792,
    "Jetson AGX Orin Industrial": 2048,
}
"""[specs]; a test holds them against the agent's table of boards."""

ON_GPU = ("tensorrt", "simulated")
"""Runtimes whose engines run on the device's GPU; the others run on its CPU."""

FP32_PER_THREAD_CLOCK = (("avx512f", 64), ("avx2", 32), ("avx", 16), ("asimd", 32))  # [simd] two units; asimd four
INT8_PER_THREAD_CLOCK = (("amx_int8", 2048), ("i8mm", 256))  # [simd] else four times fp32


class UnknownError(Exception):
    """A bound that cannot be had, and why."""


@dataclass(frozen=True)
class Peak:
    """Operations per second at most, and the arithmetic that says so."""

    ops_s: float
    said: str


def has_fast_int8(sm: str) -> bool:
    """Whether a GPU has 8-bit products that pay: dp4a is in compute capability 6.1 and from 7.0 on [cuda].

    >>> has_fast_int8("5.3"), has_fast_int8("6.1"), has_fast_int8("8.7")
    (False, True, True)
    """
    major, minor = map(int, sm.split("."))
    return (major, minor) == (6, 1) or major >= 7


def rates_of(sm: str) -> Mapping[str, int]:
    """Operations of one core in a clock, by precision.

    Raises:
        UnknownError: none are known of that compute capability.
    """
    if sm not in OPS_PER_CORE_CLOCK:
        raise UnknownError(f"no rate of arithmetic is known here of a GPU with compute capability {sm}")
    return OPS_PER_CORE_CLOCK[sm]


def gpu_peak(cores: int, hz: float, sm: str, precisions: Iterable[str]) -> Peak:
    """cores x operations per core and clock x clock, by the fastest of ``precisions`` that the GPU has.

    Raises:
        UnknownError: no rates are known of that compute capability.

    >>> gpu_peak(128, 921.6e6, "5.3", ["fp32"]).said
    '128 cores x 2 fp32 operations a clock x 0.9216 GHz = 235.9 GOPS'
    """
    rates = rates_of(sm)
    fastest = max((p for p in {*precisions, "fp32"} if p in rates), key=lambda p: (rates[p], p))
    ops_s = cores * rates[fastest] * hz
    said = (
        f"{cores} cores x {rates[fastest]} {fastest} operations a clock x {hz / 1e9:.4g} GHz = {ops_s / 1e9:.1f} GOPS"
    )
    return Peak(ops_s, said)


def cpu_peak(threads: int, khz: float, features: Iterable[str], precisions: Iterable[str]) -> Peak:
    """threads x operations per clock x clock, by the widest vector unit that ``features`` name.

    Raises:
        UnknownError: they name none that is known.

    >>> cpu_peak(2, 3e6, ["avx", "avx2"], ["int8", "fp32"]).said
    '2 threads x 128 operations a clock x 3 GHz = 768.0 GOPS'
    """
    has, asked = set(features), set(precisions)
    fp32 = next((rate for name, rate in FP32_PER_THREAD_CLOCK if name in has), None)
    if fp32 is None:
        raise UnknownError("the processor names no vector unit whose rate is known here")
    rate = fp32
    if "fp16" in asked:
        rate = 2 * fp32
    if "int8" in asked:
        rate = next((rate for name, rate in INT8_PER_THREAD_CLOCK if name in has), 4 * fp32)
    ops_s = threads * rate * khz * 1e3
    return Peak(ops_s, f"{threads} threads x {rate} operations a clock x {khz / 1e6:.3g} GHz = {ops_s / 1e9:.1f} GOPS")


def peak_of(
    environment: Mapping[str, Any],
    runtime: str,
    threads: int | None,
    precisions: Iterable[str],
    features: Iterable[str],
) -> Peak:
    """The bound of a probed device (``Evidence.environment``) for an engine of that runtime.

    Raises:
        UnknownError: the probe does not tell what it takes.
    """
    facts = environment.get("environment", {})
    if runtime in ON_GPU:
        board, sm, clocks = facts.get("board"), facts.get("sm"), facts.get("gpu_hz")
        if board not in GPU_CORES or not sm:
            raise UnknownError(f"how many cores the GPU of {board or 'this device'} has is not known here")
        if not clocks:
            raise UnknownError("the probe does not tell the clock of the GPU")
        return gpu_peak(GPU_CORES[board], max(map(max, clocks.values())), sm, precisions)
    if not facts.get("max_frequency_khz"):
        raise UnknownError("the host does not tell the clock of its processor")
    if not threads:
        raise UnknownError("the record does not tell how many threads ran")
    return cpu_peak(threads, facts["max_frequency_khz"], features, precisions)


def precisions_in(ran_as: str) -> list[str]:
    """The precisions that an engine's ``ran_as`` names.

    >>> precisions_in("int8w7+fp32")
    ['int8', 'fp32']
    """
    return re.findall(r"fp32|fp16|int8", ran_as)
