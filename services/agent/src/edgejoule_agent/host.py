"""What this host is: the stable facts that an engine is bound to and a measurement is repeated under."""

import glob
import hashlib
import importlib
import os
import platform
import re
from typing import Any, Dict, Mapping, Optional

from edgejoule_agent import cpu, jetson

RUNTIMES = ("onnxruntime", "openvino")


def probe(root: str = "/") -> Dict[str, Any]:
    """The host as a device: ``id``, ``hardware`` (binds engines) and ``environment`` (binds measurements).

    Only facts that stay while the host stays as it is, so that two probes of an untouched host are equal.
    On a Jetson also ``precisions``, what the GPU computes fast and how that was learnt.

    Args:
        root: where ``proc`` and ``sys`` lie; a fixture in tests.
    """
    found = {"id": "host", "hardware": hardware(root), "environment": environment(root)}
    board = _jetson(root)
    if board is not None:
        answer = jetson.ask_in_child() if root == "/" else dict(jetson.NOT_TOLD, learnt="TensorRT is of another root")
        found["precisions"] = jetson.precisions(board["soc"], answer)
    return found


def _jetson(root: str) -> Optional[Dict[str, Any]]:
    """``jetson.probe``, for which the module tensorrt of this interpreter counts: it is of this root only."""
    if root != "/":
        return jetson.probe(root)
    return jetson.probe(root, installed_version("tensorrt"), jetson.has_module())


def hardware(root: str = "/") -> Dict[str, Any]:
    """Machine, processor, features and the installed runtimes with their versions; on a Jetson also its L4T, on a host
    with NVIDIA's driver its GPUs.
    """
    versions = {runtime: installed_version(runtime) for runtime in RUNTIMES}
    found = {"machine": platform.machine(), "processor": cpu.name(root), "features": cpu.features(root)}
    board = _jetson(root)
    if board is not None:
        versions["tensorrt"] = board["tensorrt"]
        name, soc, sm = board["board"] or board["model"] or "unknown Jetson", board["soc"], board["sm"]
        found["processor"] = f"{name} ({soc}, SM {sm})" if soc else name
        found["l4t"] = board["l4t"]
    else:
        versions["tensorrt"] = installed_version("tensorrt") if root == "/" else None
        gpu = _gpu(root)
        if gpu is not None:
            found["gpu"] = gpu
    return dict(found, runtimes={runtime: version for runtime, version in versions.items() if version is not None})


def hardware_class(runtime: str, root: str = "/") -> Dict[str, Any]:
    """What an engine of ``runtime`` built here is bound to (HardwareClass); version ``absent`` if not installed."""
    found = hardware(root)
    if runtime != "tensorrt":
        found.pop("gpu", None)  # it does not run there
    version = found.pop("runtimes").get(runtime) or installed_version(runtime) or "absent"
    return dict(found, runtime=runtime, runtime_version=version)


def _gpu(root: str) -> Optional[str]:
    """The models of this host's NVIDIA GPUs, as their driver calls them, in the order of the bus; None without any."""
    paths = glob.glob(os.path.join(glob.escape(root), "proc/driver/nvidia/gpus/*/information"))
    told = [re.search(r"^Model:\s*(.*\S)", _read(path) or "", re.MULTILINE) for path in sorted(paths)]
    return " + ".join(model.group(1) if model else "unknown" for model in told) or None


SIMULATED = "simulated"  # the runtime of engines whose board is simulated, and a fact of their hardware
SIMULATED_ON = ", simulated on "
COMPUTED_BY = "onnxruntime"  # what makes their numbers


def simulating(processor: str, l4t: Optional[str]) -> Dict[str, Any]:
    """This host as it simulates a board: ``hardware`` of both, since the host's processor makes an engine's numbers."""
    here = hardware()
    here.pop("gpu", None)  # the numbers are made on the processor
    version = here["runtimes"].get(COMPUTED_BY)
    return dict(
        here,
        processor=f"{processor}{SIMULATED_ON}{here['processor']}",
        l4t=l4t,
        runtimes={} if version is None else {SIMULATED: f"{COMPUTED_BY} {version}"},
        simulated=True,
    )


def simulating_class(built_for: Mapping[str, Any]) -> Dict[str, Any]:
    """What an engine must be bound to that this host would run as the simulated board of ``built_for``."""
    found = simulating(built_for["processor"].split(SIMULATED_ON)[0], built_for["l4t"])
    version = found.pop("runtimes").get(SIMULATED, "absent")
    return dict(found, runtime=SIMULATED, runtime_version=version)


def environment(root: str = "/") -> Dict[str, Any]:
    """Facts beside the hardware that move a latency; ``None`` where the host does not tell. On a Jetson: all of it."""
    cpus = os.path.join(root, "sys/devices/system/cpu")
    no_turbo = _read(os.path.join(cpus, "intel_pstate/no_turbo"))
    boost = _read(os.path.join(cpus, "cpufreq/boost"))
    memory = re.search(r"MemTotal:\s+(\d+) kB", _read(os.path.join(root, "proc/meminfo")) or "")
    found = {
        "machine_id": _machine_id(root),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numpy": installed_version("numpy"),
        "opencv": installed_version("opencv-python-headless"),
        "cpus": len(os.sched_getaffinity(0)),
        "governor": _read(os.path.join(cpus, "cpu0/cpufreq/scaling_governor")),
        "min_frequency_khz": _integer(_read(os.path.join(cpus, "cpu0/cpufreq/scaling_min_freq"))),
        "max_frequency_khz": _integer(_read(os.path.join(cpus, "cpu0/cpufreq/scaling_max_freq"))),
        "turbo": no_turbo == "0" if no_turbo is not None else None if boost is None else boost == "1",
        "smt": _read(os.path.join(cpus, "smt/control")),
        "memory_total_mb": int(memory.group(1)) * 1024 // 10**6 if memory else None,
        "cpu_quota": _read(os.path.join(root, "sys/fs/cgroup/cpu.max")),
        "container": any(os.path.exists(os.path.join(root, name)) for name in (".dockerenv", "run/.containerenv")),
    }
    return dict(found, **(_jetson(root) or {}))


def _machine_id(root: str) -> Optional[str]:
    """Which machine this is, hashed: hosts that share a store must not take each other's measurements."""
    found = _read(os.path.join(root, "etc/machine-id"))
    return hashlib.sha256(found.encode()).hexdigest()[:12] if found else None


def memory_available_bytes(root: str = "/") -> Optional[int]:
    """MemAvailable of the kernel, or None where it does not tell."""
    found = re.search(r"MemAvailable:\s+(\d+) kB", _read(os.path.join(root, "proc/meminfo")) or "")
    return int(found.group(1)) * 1024 if found else None


def resident_memory_bytes() -> int:
    """What this process holds of the memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def installed_version(distribution: str) -> Optional[str]:
    """The version of an installed distribution, without importing it; None when it is not installed."""
    try:
        from importlib import metadata  # novm: caught below
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


def _read(path: str) -> Optional[str]:
    """A small file's text, or None where this kernel or container does not show it."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return None


def _integer(text: Optional[str]) -> Optional[int]:
    return int(text) if text and text.isdigit() else None
