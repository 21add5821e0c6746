"""What this host is: the stable facts that an engine is bound to and a measurement is repeated under."""

import hashlib
import importlib
import os
import platform
import re
from typing import Any, Dict, List, Optional

RUNTIMES = ("onnxruntime", "openvino")

# CPU flags that change which kernels a runtime picks
FEATURES = (
    *("sse4_2", "avx", "avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimdhp", "asimddp", "fphp", "i8mm", "bf16", "sve", "sve2"),
)


def probe(root: str = "/") -> Dict[str, Any]:
    """The host as a device: ``id``, ``hardware`` (binds engines) and ``environment`` (binds measurements).

    Only facts that stay while the host stays as it is, so that two probes of an untouched host are equal.

    Args:
        root: where ``proc`` and ``sys`` lie; a fixture in tests.
    """
    return {"id": "host", "hardware": hardware(root), "environment": environment(root)}


def hardware(root: str = "/") -> Dict[str, Any]:
    """Machine, processor, features and the installed runtimes with their versions."""
    cpu = _cpu_info(root)
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    versions = {runtime: installed_version(runtime) for runtime in RUNTIMES}
    return {
        "machine": platform.machine(),
        "processor": _processor(cpu),
        "features": [feature for feature in FEATURES if feature in flags],
        "runtimes": {runtime: version for runtime, version in versions.items() if version is not None},
    }


def hardware_class(runtime: str, root: str = "/") -> Dict[str, Any]:
    """What an engine of ``runtime`` built here is bound to (HardwareClass); version ``absent`` if not installed."""
    found = hardware(root)
    version = found.pop("runtimes").get(runtime, "absent")
    return dict(found, runtime=runtime, runtime_version=version)


def environment(root: str = "/") -> Dict[str, Any]:
    """Facts beside the hardware that move a latency; ``None`` where the host does not tell."""
    cpu = os.path.join(root, "sys/devices/system/cpu")
    no_turbo = _read(os.path.join(cpu, "intel_pstate/no_turbo"))
    boost = _read(os.path.join(cpu, "cpufreq/boost"))
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read(os.path.join(root, "proc/meminfo")) or "")
    return {
        "machine_id": _machine_id(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": installed_version("numpy"),
        "opencv": installed_version("opencv-python-headless"),
        "cpus": len(os.sched_getaffinity(0)),
        "governor": _read(os.path.join(cpu, "cpu0/cpufreq/scaling_governor")),
        "min_frequency_khz": _integer(_read(os.path.join(cpu, "cpu0/cpufreq/scaling_min_freq"))),
        "max_frequency_khz": _integer(_read(os.path.join(cpu, "cpu0/cpufreq/scaling_max_freq"))),
        "turbo": no_turbo == "0" if no_turbo is not None else None if boost is None else boost == "1",
        "smt": _read(os.path.join(cpu, "smt/control")),
        "memory_total_mb": int(memory.group(1)) * 1024 // 10**6 if memory else None,
        "cpu_quota": _read(os.path.join(root, "sys/fs/cgroup/cpu.max")),
        "container": any(os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv")),
    }


def _machine_id(root: str) -> Optional[str]:
    """Which machine this is, hashed: hosts that share a store must not take each other's measurements."""
    found = _read(os.path.join(root, "etc/machine-id"))
    return hashlib.sha256(found.encode()).hexdigest()[:12] if found else None


def memory_available_bytes(root: str = "/") -> Optional[int]:
    """MemAvailable of the kernel, or None where it does not tell."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read(os.path.join(root, "proc/meminfo")) or "")
    return int(found.group(1)) * 1024 if found else None


def installed_version(distribution: str) -> Optional[str]:
    """The version of an installed distribution, without importing it; None when it is not installed."""
    try:
        from importlib import metadata
    except ImportError:  # before Python 3.8
        return _version_from_setuptools(distribution)
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _version_from_setuptools(distribution: str) -> Optional[str]:
    pkg_resources: Any = importlib.import_module("pkg_resources")
    try:
        return str(pkg_resources.get_distribution(distribution).version)
    except pkg_resources.DistributionNotFound:
        return None


def _cpu_info(root: str) -> Dict[str, str]:
    """The first processor's fields of /proc/cpuinfo."""
    lines = (_read(os.path.join(root, "proc/cpuinfo")) or "").split("\n\n")[0].split("\n")
    pairs: List[List[str]] = [line.split(":", 1) for line in lines if ":" in line]
    return {key.strip(): value.strip() for key, value in pairs}


def _processor(cpu: Dict[str, str]) -> str:
    """The model, with family and stepping where the name alone is vague (virtual machines mask it)."""
    numbers = [cpu[key] for key in ("cpu family", "model", "stepping") if key in cpu]
    name = cpu.get("model name") or "CPU part " + cpu.get("CPU part", "unknown")
    return f"{name} ({'/'.join(numbers)})" if numbers else name


def _read(path: str) -> Optional[str]:
    """A small file's text, or None where this kernel or container does not show it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _integer(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.isdigit() else None
