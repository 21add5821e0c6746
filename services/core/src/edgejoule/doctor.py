"""All that a bug report needs: versions, processor, memory, disk, clocks, sensors, runtimes, steps, store."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgejoule import __version__
from edgejoule.devices import probe
from edgejoule.errors import EdgejouleError
from edgejoule.kinds import PACKAGES, Kinds
from edgejoule.store import open_store

OURS = ("edgejoule", "edgejoule-agent", "edgejoule-trainer", "edgejoule-evaluator", "edgejoule-analyst")
RUNTIMES = ("onnxruntime", "openvino", "tensorrt")
LIBRARIES = (
    *("torch", "onnx", "onnxslim", "numpy", "scipy", "opencv-python-headless", "hotcoco", "pycocotools"),
    *("boto3", "celery"),
)


def examine(store: str, root: Path = Path("/")) -> dict[str, Any]:
    """Look at everything; what cannot be told is said in words, never left out.

    Args:
        store: the store's folder, which is not made, or its s3:// URL.
        root: where ``proc`` and ``sys`` are.
    """
    return {
        "edgejoule": __version__,
        "python": f"{platform.python_version()} ({platform.python_implementation()}, {sys.executable})",
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "packages": {name: _version(name) for name in OURS},
        "runtimes": {name: _version(name) for name in RUNTIMES},
        "libraries": {name: _version(name) for name in LIBRARIES},
        "processor": processor(root),
        "memory": memory(root),
        "power": rapl(root),
        "device host": _host(),
        "steps": dict(_steps()),
        "store": store_health(store),
    }


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def processor(root: Path) -> dict[str, Any]:
    """Model, cores and their governor; its features are with device host."""
    fields = _fields(root / "proc/cpuinfo")
    governors = {_read(path) for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor")}
    return {
        "model": fields.get("model name", "unknown"),
        "cores": os.cpu_count(),
        "cores this process may use": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else "unknown",
        "governor": ", ".join(sorted(governors)) or "unknown: the kernel shows no cpufreq",
        "load": " ".join(_read(root / "proc/loadavg").split()[:3]) or "unknown",
    }


def memory(root: Path) -> dict[str, str]:
    """Memory of the host and, where one is set, the limit of the control group."""
    fields = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines() if ":" in line)
    sizes = {
        name: fields.get(name, "unknown").strip() for name in ("MemTotal", "MemAvailable", "SwapTotal", "SwapFree")
    }
    return {**sizes, "limit of the control group": _read(root / "sys/fs/cgroup/memory.max") or "none"}


def rapl(root: Path) -> str:
    """Whether the processor's energy counter can be read."""
    zones = sorted(root.glob("sys/class/powercap/intel-rapl:?/energy_uj"))
    if not zones:
        return "no RAPL energy counter on this host: power and energy will be absent"
    if not os.access(zones[0], os.R_OK):
        return f"{zones[0]} needs root to be read: sudo chmod a+r {zones[0]}"
    return f"RAPL is readable: {', '.join(_read(zone.parent / 'name') for zone in zones)}"


def _host() -> Any:
    try:
        device = probe("host")
    except EdgejouleError as error:
        return f"cannot be probed: {error}"
    except Exception as error:  # noqa: BLE001 - a doctor reports what is broken, whatever it is
        return f"its probe ended in {error!r}"
    told = {"id": device.id, "hardware": dict(device.hardware), "environment": dict(device.environment)}
    return told if device.precisions is None else {**told, "precisions": dict(device.precisions)}


def _steps() -> Iterator[tuple[str, str]]:
    kinds = Kinds()
    for name in sorted({*PACKAGES, *kinds.modules}):
        try:
            kind = kinds[name]
        except EdgejouleError as error:
            yield name, f"broken: {error}"
        else:
            yield name, f"version {kind.version} in {kind.module}"


def store_health(where: str) -> dict[str, Any]:
    """Whether the store can be written, how much is in it, how much room is left; of an S3 store the first alone."""
    if "://" in where:
        return {"path": where, "answer": _answer(where)}
    path = Path(where)
    existing = next(folder for folder in (path.absolute(), *path.absolute().parents) if folder.is_dir())
    usage = shutil.disk_usage(existing)
    health: dict[str, Any] = {
        "path": str(path),
        "exists": path.is_dir(),
        "writable": os.access(existing, os.W_OK | os.X_OK),
        "free disk": f"{usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB",
    }
    if path.is_dir():
        blobs = [file.stat().st_size for file in path.glob("blobs/sha256/??/*")]
        health["blobs"] = f"{len(blobs)}, {sum(blobs) / 1e6:.1f} MB"
        health["steps done"] = sum(1 for _ in path.glob("manifests/*.json"))
        health["steps with failures"] = sum(1 for _ in path.glob("attempts/*/1.json"))
        health["quarantined"] = sum(1 for _ in path.glob("quarantine/*"))
    return health


def _answer(where: str) -> str:
    try:
        open_store(where, os.environ)
    except EdgejouleError as error:
        return f"cannot be used: {error}"
    return "can be read and written"


def _fields(path: Path) -> dict[str, str]:
    """The ``name: value`` lines of a file of the kernel; of equal names (one per core) the first."""
    lines = (line.partition(":") for line in reversed(_read(path).splitlines()))
    return {name.strip(): value.strip() for name, _, value in lines}


def _read(path: Path) -> str:
    """The text of a small file of the kernel; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def as_lines(value: Any, indent: int = 0) -> Iterator[str]:
    """The examination as indented ``name: value`` lines."""
    for name, part in value.items():
        if isinstance(part, dict):
            yield f"{' ' * indent}{name}:"
            yield from as_lines(part, indent + 2)
        else:
            yield f"{' ' * indent}{name}: {part}"
