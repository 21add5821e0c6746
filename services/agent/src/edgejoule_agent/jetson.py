"""What a Jetson says of itself: the stable facts that engines and measurements on it are bound to.

Everything is read from files under a root, without privileges. A fact that cannot be read is ``None``, and ``absent``
says why. In a container, those files must be mounted that a container does not show by itself (/proc/device-tree,
/etc/nv_tegra_release, /etc/nvpmodel.conf, /var/lib/nvpmodel, /etc/nvfancontrol.conf).
"""

import contextlib
import functools
import glob
import importlib
import importlib.util
import json
import os
import re
import sys
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Tuple

from edgejoule_agent import boards, isolate, l4t
from edgejoule_agent.errors import AgentError

LIBRARIES = "usr/lib/aarch64-linux-gnu"
DPKG = "var/lib/dpkg/status"
ASK_TIMEOUT_S = 120.0  # TensorRT and CUDA take half a minute to start on a Nano with cold disks
ASK_MEMORY_BYTES = 2 * 10**9  # a CUDA context with all kernels takes a few hundred MB


FAST = ("fast_int8", "fast_fp16")
NOT_TOLD = {**dict.fromkeys(FAST), "tensorrt": None}


class Unknown(Exception):
    """A fact that cannot be told, and why."""


class PowerModes(NamedTuple):
    """What /etc/nvpmodel.conf declares."""

    names: Dict[int, str]
    default: Optional[int]


def is_jetson(root: str = "/") -> bool:
    """Whether this is a Jetson: by its release file or, where that is hidden, by its device tree."""
    if os.path.exists(os.path.join(root, "etc/nv_tegra_release")):
        return True
    try:
        return boards.soc_of(_strings(root, "proc/device-tree/compatible")) is not None
    except Unknown:
        return False


def has_module() -> bool:
    """Whether this interpreter has the Python module tensorrt, without which nothing here runs on the GPU."""
    return "tensorrt" in sys.modules or importlib.util.find_spec("tensorrt") is not None


def probe(
    root: str = "/", module_version: Optional[str] = None, module_is_here: bool = True
) -> Optional[Dict[str, Any]]:
    """The facts of a Jetson under ``root``, or None where there is none.

    Two probes of an untouched board are equal: nothing here follows load, temperature or time, but for the greatest
    clocks of one so hot that the kernel caps them.

    Args:
        module_version: of the Python module tensorrt, if its package tells; it is the one that will run.
        module_is_here: see ``has_module``; without it TensorRT's libraries are of no use, and it has no version.
    """
    if not is_jetson(root):
        return None
    facts: Dict[str, Any] = {}
    absent: Dict[str, str] = {}

    def learn(names: Tuple[str, ...], read: Callable[[], Tuple[Any, ...]]) -> None:
        try:
            values = read()
        except Unknown as reason:
            facts.update(dict.fromkeys(names))
            absent.update({name: str(reason) for name in names})
        else:
            facts.update(zip(names, values))

    learn(("model",), lambda: (_strings(root, "proc/device-tree/model")[0],))
    learn(("board", "module"), lambda: _board(root))
    learn(("soc", "sm"), lambda: _soc(root))
    learn(("l4t",), lambda: (_l4t(root),))
    learn(("jetpack",), lambda: (_jetpack(facts["l4t"]),))
    learn(("tensorrt",), lambda: (_tensorrt(root, module_version, module_is_here),))
    learn(("cuda",), lambda: (_cuda(root),))
    learn(("cudnn",), lambda: (_library_version(root, "libcudnn"),))
    learn(("power_mode", "power_mode_id"), lambda: power_mode(root))
    learn(("cpus_online",), lambda: (_text(root, "sys/devices/system/cpu/online"),))
    learn(("cpu_khz",), lambda: (_cpu_khz(root),))
    learn(("gpu_hz",), lambda: (_gpu_hz(root),))
    learn(("clocks_locked",), lambda: (_locked(facts["cpu_khz"], facts["gpu_hz"]),))
    learn(("fan",), lambda: (_fan(root),))
    learn(("swap_total_mb", "zram_total_mb"), lambda: _swap(root))
    return dict(facts, absent=absent)


def power_modes(root: str = "/") -> PowerModes:
    """What this board's nvpmodel.conf declares. Raises Unknown."""
    return parse_power_modes(_text(root, "etc/nvpmodel.conf"))


def power_mode(root: str = "/") -> Tuple[str, int]:
    """The mode that is on. Ids shift between releases and vendors; only the name can be compared.

    Without a status file the default is on: that is what nvpmodel then sets at boot (its --help). Raises Unknown.
    """
    modes = power_modes(root)
    status = "var/lib/nvpmodel/status"
    if os.path.exists(os.path.join(root, status)):
        text = _text(root, status)
        number = parse_power_status(text)
        if number is None:
            raise Unknown(f"/{status} says {text[:60]!r}, which names no mode")
    elif modes.default is not None:
        number = modes.default
    else:
        raise Unknown(f"there is no /{status}, and /etc/nvpmodel.conf declares no default")
    if number not in modes.names:
        known = ", ".join(f"{each}: {name}" for each, name in sorted(modes.names.items())) or "none"
        raise Unknown(f"mode {number} is on, which /etc/nvpmodel.conf does not declare ({known})")
    return modes.names[number], number


# --- what the hardware can ---------------------------------------------------------------------------


def precisions(soc_name: Optional[str], answer: Mapping[str, Any]) -> Dict[str, Any]:
    """Whether INT8 and FP16 run fast: ``fast_int8``, ``fast_fp16`` (None: unknown), and how that was ``learnt``;
    ``tensorrt``, the version of the TensorRT that could be asked (None: it could not).

    What TensorRT reports counts. TensorRT 11 tells no more; then, and where it cannot be asked, the SM decides.

    Args:
        soc_name: from ``probe``.
        answer: of ``ask_in_child``.
    """
    if answer["fast_int8"] is not None and answer["fast_fp16"] is not None:
        return {**answer, "learnt": f"{answer['learnt']} reports it"}
    soc = boards.soc_named(soc_name) if soc_name else None
    if soc is None:
        return {**answer, **dict.fromkeys(FAST), "learnt": f"unknown: {answer['learnt']}, and the GPU is unknown"}
    fast = boards.fast_precisions_of(boards.capability(soc.sm))
    return {
        **answer,
        "fast_int8": "int8" in fast,
        "fast_fp16": "fp16" in fast,
        "learnt": f"by SM {soc.sm}: {answer['learnt']}",
    }


def ask_tensorrt(_request: Any, _progress: Any) -> Dict[str, Any]:
    """What TensorRT says of this GPU: ``fast_int8`` and ``fast_fp16``, None where it has no such word; who told, and
    its version (``tensorrt``).

    Makes a CUDA context, which its process keeps: see ``ask_in_child``.
    """
    try:
        tensorrt: Any = importlib.import_module("tensorrt")
        builder = tensorrt.Builder(tensorrt.Logger(tensorrt.Logger.ERROR))
    except Exception as error:  # noqa: BLE001 - what the bindings raise without a GPU differs by release
        return dict(NOT_TOLD, learnt=f"TensorRT cannot be asked ({type(error).__name__}: {error})")
    release = f"TensorRT {tensorrt.__version__}"
    told = {name: getattr(builder, f"platform_has_{name}", None) for name in FAST}
    learnt = f"{release} does not tell" if None in told.values() else release
    return dict(told, tensorrt=str(tensorrt.__version__), learnt=learnt)


@functools.lru_cache(maxsize=1)
def ask_in_child() -> Mapping[str, Any]:
    """``ask_tensorrt`` in a child that ends, so that its memory is free again; once per process, whatever comes."""
    if not has_module():
        return dict(NOT_TOLD, learnt="the Python module tensorrt is not installed")
    try:
        answer: Mapping[str, Any] = isolate.run(
            "edgejoule_agent.jetson:ask_tensorrt", {}, lambda *_: None, ASK_MEMORY_BYTES, ASK_TIMEOUT_S
        )
    except AgentError as error:
        return dict(NOT_TOLD, learnt=f"TensorRT cannot be asked ({error})")
    return answer


# --- parsers -----------------------------------------------------------------------------------------


def parse_power_modes(text: str) -> PowerModes:
    """The modes of an nvpmodel.conf, by id, and the default; lines that are no declarations do not matter.

    >>> parse_power_modes("< POWER_MODEL ID=2 NAME=MAXN_SUPER >\\n< PM_CONFIG DEFAULT=1 >")
    PowerModes(names={2: 'MAXN_SUPER'}, default=1)
    """
    names: Dict[int, str] = {}
    default = None
    for line in text.splitlines():
        declared = re.match(r"\s*<\s*(POWER_MODEL|PM_CONFIG)\s+([^>]*)>", line)
        if declared is None:
            continue
        fields = dict(re.findall(r"(\w+)\s*=\s*(\S+)", declared.group(2)))
        if declared.group(1) == "PM_CONFIG":
            default = _number(fields.get("DEFAULT"))
        else:
            number = _number(fields.get("ID"))
            if number is not None and "NAME" in fields:
                names[number] = fields["NAME"]
    return PowerModes(names, default)


def parse_power_status(text: str) -> Optional[int]:
    """The id in /var/lib/nvpmodel/status, or None.

    >>> parse_power_status("pmode:0002 fmode:quiet")
    2
    """
    found = re.search(r"\bpmode:(\d{1,6})\b", text, re.ASCII)
    return int(found.group(1)) if found else None


def _number(text: Optional[str]) -> Optional[int]:
    return int(text) if text is not None and re.match(r"\d{1,6}$", text, re.ASCII) else None


# --- one function per fact; each raises Unknown with the reason --------------------------------------


def _board(root: str) -> Tuple[str, str]:
    """Compatible strings before the file name: an Orin Nano developer kit's names the module 0003, and it has 0005."""
    names = _strings(root, "proc/device-tree/compatible")
    parts = boards.parts_in(names)
    with contextlib.suppress(Unknown):  # JetPack 6 and later have no such name
        parts += boards.parts_in(map(os.path.basename, _strings(root, "proc/device-tree/nvidia,dtsfilename")))
    found = boards.board_of(parts)
    if found is None:
        raise Unknown(f"no known module among {', '.join(parts) or ', '.join(names)} in the device tree")
    return found[0].name, found[1]


def _soc(root: str) -> Tuple[str, str]:
    names = _strings(root, "proc/device-tree/compatible")
    name = boards.soc_of(names)
    soc = boards.soc_named(name) if name else None
    if soc is None:
        raise Unknown(f"no known system on chip among {', '.join(names)} in the device tree")
    return soc.name, soc.sm


def _l4t(root: str) -> str:
    text = _text(root, "etc/nv_tegra_release")
    found = l4t.parse_release(text)
    if found is None:
        raise Unknown(f"/etc/nv_tegra_release says {text[:60]!r}, which names no release")
    return found


def _jetpack(version: Optional[str]) -> str:
    if version is None:
        raise Unknown("the L4T release is not known")
    release = l4t.release_of(version)
    if release is None:
        raise Unknown(f"L4T {version} is in no table here; the newest is {l4t.RELEASES[-1].l4t}")
    return release.jetpack


def _tensorrt(root: str, module_version: Optional[str], module_is_here: bool) -> str:
    version = module_version or _library_version(root, "libnvinfer")
    if not module_is_here:
        raise Unknown(f"TensorRT {version} is there, but not its Python module tensorrt for this interpreter")
    return version


def _library_version(root: str, library: str) -> str:
    """From ``libNAME.so.1.2.3``, as most digits as a file of it shows, else from the Debian package."""
    found = [
        match.group(1)
        for path in glob.glob(os.path.join(glob.escape(root), LIBRARIES, library + ".so.*"))
        for match in [re.search(r"\.so\.(\d+(?:\.\d+)+)$", path, re.ASCII)]
        if match
    ]
    if found:
        return max(found, key=lambda version: [int(part) for part in version.split(".")])
    try:
        packages = _text(root, DPKG)
    except Unknown as reason:
        raise Unknown(f"no /{LIBRARIES}/{library}.so.* of a version, and {reason}") from None
    for package in packages.split("\n\n"):
        if re.search(rf"^Package: {library}\d+$", package, re.MULTILINE):
            version = re.search(r"^Version: ([\d.]+)", package, re.MULTILINE)
            if version and re.search("^Status: .* installed$", package, re.MULTILINE):
                return version.group(1)
    raise Unknown(f"neither /{LIBRARIES}/{library}.so.* of a version nor a package {library}: not installed")


def _cuda(root: str) -> str:
    try:
        return str(json.loads(_text(root, "usr/local/cuda/version.json"))["cuda"]["version"])
    except (Unknown, ValueError, KeyError, TypeError):
        pass  # before CUDA 11.1 it is a text
    text = _text(root, "usr/local/cuda/version.txt")
    found = re.match(r"CUDA Version ([\d.]+)$", text)
    if found is None:
        raise Unknown(f"/usr/local/cuda/version.txt says {text[:60]!r}, which names no version")
    return found.group(1)


def _cpu_khz(root: str) -> Dict[str, List[int]]:
    """Per cluster with a core that is on its least and greatest clock in this mode, kHz.

    The kernel keeps the folder of a cluster that is off: its ``affected_cpus`` is empty then, and its clocks are of
    before or cannot be read (drivers/cpufreq/cpufreq.c).
    """
    return _ranges(
        root,
        "sys/devices/system/cpu/cpufreq",
        r"policy\d+$",
        ("scaling_min_freq", "scaling_max_freq"),
        lambda policy: _is_on(root, policy),
    )


def _is_on(root: str, policy: str) -> bool:
    try:
        return _text(root, f"{policy}/affected_cpus") != ""
    except Unknown:
        return True


def _gpu_hz(root: str) -> Dict[str, List[int]]:
    """The GPU's least and greatest clock in this mode, Hz. Names: jetson_stats' gpu.py and thor_gpu.py."""
    names = r"(?:.*\.(?:gpu|gp10b|gv11b|ga10b)|gpu-gpc-\d+)$"
    return _ranges(root, "sys/class/devfreq", names, ("min_freq", "max_freq"))


def _ranges(
    root: str, folder: str, names: str, files: Tuple[str, str], counts: Callable[[str], bool] = lambda _: True
) -> Dict[str, List[int]]:
    found = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(root), folder, "*"))):
        name = os.path.basename(path)
        if re.match(names, name) and counts(f"{folder}/{name}"):
            found[name] = [_integer(root, f"{folder}/{name}/{file}") for file in files]
    if not found:
        raise Unknown(f"nothing that fits under /{folder}")
    return found


def _locked(cpu_khz: Optional[Dict[str, List[int]]], gpu_hz: Optional[Dict[str, List[int]]]) -> bool:
    """Whether CPU and GPU each have one clock alone, as jetson_clocks makes it: the greatest of the mode."""
    if cpu_khz is None or gpu_hz is None:
        raise Unknown("the clocks of the {} are not known".format("CPU" if cpu_khz is None else "GPU"))
    return all(least == greatest for least, greatest in [*cpu_khz.values(), *gpu_hz.values()])


def _fan(root: str) -> str:
    """Who drives the fan: a profile of nvfancontrol (JetPack 5 on; Xavier before), the kernel, or neither.

    How fast it then turns is no fact of the board, since a daemon of the user's may set it by temperature.
    """
    for path, pattern, kind in (
        ("var/lib/nvfancontrol/status", r"FAN_PROFILE[:=\s]+(\w+)", "profile"),  # form: as nvfancontrol -q prints it
        ("etc/nvfancontrol.conf", r"^\s*FAN_DEFAULT_PROFILE\s+(\w+)", "default profile"),
        ("var/lib/nvpmodel/status", r"\bfmode:(\w+)", "profile"),
    ):
        with contextlib.suppress(Unknown):
            found = re.search(pattern, _text(root, path), re.MULTILINE)
            if found:
                return f"{kind} {found.group(1)}"
    if not os.path.exists(os.path.join(root, "sys/devices/pwm-fan")):
        raise Unknown(
            "neither /etc/nvfancontrol.conf nor a profile in /var/lib/nvpmodel/status nor /sys/devices/pwm-fan"
        )
    if _integer(root, "sys/devices/pwm-fan/temp_control"):
        return "by temperature"
    return "by hand, or by a program"


def _swap(root: str) -> Tuple[int, int]:
    """All swap and the part of it in compressed RAM, MB (1e6 bytes)."""
    rows = [line.split() for line in _text(root, "proc/swaps").splitlines()[1:]]
    sizes = [(row[0], int(row[2])) for row in rows if len(row) >= 3 and row[2].isdigit()]
    zram = [kb for name, kb in sizes if name.startswith("/dev/zram")]
    return sum(kb for _, kb in sizes) * 1024 // 10**6, sum(zram) * 1024 // 10**6


# --- files -------------------------------------------------------------------------------------------


def _bytes(root: str, path: str) -> bytes:
    try:
        with open(os.path.join(root, path), "rb") as file:
            return file.read()
    except OSError as error:
        raise Unknown(f"/{path}: {error.strerror}") from None


def _text(root: str, path: str) -> str:
    return _bytes(root, path).decode("utf-8", "replace").strip()


def _strings(root: str, path: str) -> List[str]:
    """The NUL-terminated strings of a property of the device tree; at least one."""
    found = [part for part in _bytes(root, path).decode("utf-8", "replace").split("\0") if part]
    if not found:
        raise Unknown(f"/{path} is empty")
    return found


def _integer(root: str, path: str) -> int:
    text = _text(root, path)
    if not re.match(r"\d{1,18}$", text, re.ASCII):
        raise Unknown(f"/{path} says {text[:60]!r}, which is no number")
    return int(text)
