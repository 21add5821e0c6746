"""The boards we know: how each is recognised, its GPU, its power rails. Facts no board tells of itself.

Sources: [jtop] rbonghi/jetson_stats (jetson_variables.py, power.py); [jc] dusty-nv/jetson-containers
(l4t_version.py); [guide] NVIDIA's Jetson Linux Developer Guide, "Platform Power and Performance" (before r34: "Power
Management"); [emon] energymon/energymon (jetson/README.md, JetsonPowerRails.md); [specs] NVIDIA's comparison of
Jetson modules; [cuda] CUDA C++ Programming Guide, throughput of arithmetic instructions; [tegra] OE4T/meta-tegra,
README.md, its device tree of p3834-0000; [trees] the sources of simulation/trees.py, by board. Of one fact nobody has
kept the address: the half MHz of the GPU's clock of TX2 and AGX Orin.
"""

import re
from typing import Iterable, List, NamedTuple, Optional, Tuple


class Soc(NamedTuple):
    """A system on chip and its GPU's compute capability."""

    name: str
    sm: str


SOCS = (  # [jtop], [jc]
    Soc("tegra210", "5.3"),
    Soc("tegra186", "6.2"),
    Soc("tegra194", "7.2"),
    Soc("tegra234", "8.7"),
    Soc("tegra264", "11.0"),
)


class Rails(NamedTuple):
    """Which power rails tell what a board takes. Labels are the same under all its BSPs ([emon], [jtop])."""

    total: Optional[str]  # one rail that holds all the others
    add: Tuple[str, ...]  # where there is none: rails that do not overlap
    leaves_out: str  # what neither holds; empty: nothing known
    why: str  # why there is no single one


_MODULE = "the carrier board and what is plugged into it"

NANO_RAILS = Rails("POM_5V_IN", (), _MODULE, "")  # [guide] VDD_IN, "main module power input"; GPU and CPU are parts
NANO_2GB_RAILS = Rails(None, (), "", "a Jetson Nano 2 GB has no power monitor")  # [emon]
VDD_IN_RAILS = Rails("VDD_IN", (), _MODULE, "")  # [guide]; NVIDIA's forum 200883: "the total power of module"
AGX_XAVIER_RAILS = Rails(  # [emon]: SYS_VIN_MV feeds SYS5V, SYS_VIN_HV the others
    None,
    ("GPU", "CPU", "SOC", "CV", "VDDRQ", "SYS5V"),
    _MODULE,
    "the module has two inputs and no monitor before them",
)
AGX_ORIN_RAILS = Rails(  # [emon], [guide]; VDDQ_VDD2_1V8AO is part of VIN_SYS_5V0
    None,
    ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"),
    _MODULE,
    "the module has two inputs and no monitor before them",
)
THOR_RAILS = Rails("VIN", (), "", "")  # an INA238 before module and carrier: NVIDIA's forum 366461


class Board(NamedTuple):
    """One board, by the module that sits on it; boards of one name share engines."""

    name: str
    modules: Tuple[str, ...]  # part numbers in the device tree: [jtop]; p3834-0000: [tegra]
    soc: str
    gpu_cores: int  # [specs]
    gpu_max_hz: Optional[int]  # in the fastest mode of any release: [specs], to the kHz [trees]; None: not looked up
    dlas: int  # deep-learning accelerators: [specs]
    rails: Rails


BOARDS = (
    Board("Jetson Nano 4 GB", ("p3448-0000", "p3448-0002"), "tegra210", 128, 921600000, 0, NANO_RAILS),
    Board("Jetson Nano 2 GB", ("p3448-0003",), "tegra210", 128, 921600000, 0, NANO_2GB_RAILS),
    Board(
        *("Jetson TX2", ("p3310-1000", "p3489-0000", "p3489-0888"), "tegra186", 256, 1300500000, 0),
        rails=VDD_IN_RAILS,  # VDD_MUX is the carrier's, beside it: [emon]
    ),
    Board("Jetson TX2 NX", ("p3636-0001",), "tegra186", 256, 1300500000, 0, VDD_IN_RAILS),
    Board(
        *("Jetson Xavier NX", ("p3668-0000", "p3668-0001", "p3668-0003"), "tegra194", 384, 1109250000, 2),
        rails=VDD_IN_RAILS,
    ),
    Board(
        *(
            "Jetson AGX Xavier",
            ("p2888-0001", "p2888-0003", "p2888-0004", "p2888-0005"),
            "tegra194",
            512,
            1377000000,
            2,
        ),
        rails=AGX_XAVIER_RAILS,
    ),
    Board("Jetson AGX Xavier Industrial", ("p2888-0008",), "tegra194", 512, None, 2, AGX_XAVIER_RAILS),
    Board("Jetson Orin Nano 8 GB", ("p3767-0003", "p3767-0005"), "tegra234", 1024, 1020000000, 0, VDD_IN_RAILS),
    Board("Jetson Orin Nano 4 GB", ("p3767-0004",), "tegra234", 512, 1020000000, 0, VDD_IN_RAILS),
    Board("Jetson Orin NX 16 GB", ("p3767-0000", "p3767-0002"), "tegra234", 1024, 1173000000, 2, VDD_IN_RAILS),
    Board("Jetson Orin NX 8 GB", ("p3767-0001",), "tegra234", 1024, 1173000000, 1, VDD_IN_RAILS),
    # 0000 sits in the first developer kits: 32 GB, but the 64 GB module's GPU
    Board("Jetson AGX Orin 64 GB", ("p3701-0000", "p3701-0005"), "tegra234", 2048, 1300500000, 2, AGX_ORIN_RAILS),
    Board("Jetson AGX Orin 32 GB", ("p3701-0004",), "tegra234", 1792, None, 2, AGX_ORIN_RAILS),
    Board("Jetson AGX Orin Industrial", ("p3701-0008",), "tegra234", 2048, None, 2, AGX_ORIN_RAILS),
    Board("Jetson Thor T5000", ("p3834-0008",), "tegra264", 2560, 1575000000, 0, THOR_RAILS),
    Board("Jetson Thor T4000", ("p3834-0000",), "tegra264", 1536, None, 0, THOR_RAILS),
)


def parts_in(names: Iterable[str]) -> List[str]:
    """The part numbers in strings of a device tree, in their order.

    >>> parts_in(["nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"])
    ['p3768-0000', 'p3767-0005', 'p3767-0005']
    """
    return [part for name in names for part in re.findall(r"p\d{4}-\d{4}", name)]


def board_of(parts: Iterable[str]) -> Optional[Tuple[Board, str]]:
    """The board with the first part number that is a module's, and that number; None if none is known."""
    for part in parts:
        for board in BOARDS:
            if part in board.modules:
                return board, part
    return None


def soc_of(compatible: Iterable[str]) -> Optional[str]:
    """The system on chip that a device tree's compatible strings name.

    >>> soc_of(["nvidia,jetson-nano", "nvidia,tegra210"])
    'tegra210'
    """
    for name in compatible:
        found = re.match(r"nvidia,(tegra\d{3})$", name)
        if found:
            return found.group(1)
    return None


def soc_named(name: str) -> Optional[Soc]:
    """What we know of a system on chip, or None."""
    return next((soc for soc in SOCS if soc.name == name), None)


def fast_precisions_of(sm: Tuple[int, int]) -> Tuple[str, ...]:
    """fp16 and int8, where a GPU of that compute capability has arithmetic for them that pays.

    For TensorRT's own answer see ``jetson.ask_tensorrt``. This is from the throughput table in [cuda]: half precision
    at twice the rate of single on 5.3, 6.0, 6.2 and from 7.0, but a 64th on 6.1; dp4a (four 8-bit products in one
    instruction) on 6.1 and from 7.0.

    >>> fast_precisions_of((5, 3)), fast_precisions_of((8, 7))
    (('fp16',), ('fp16', 'int8'))
    """
    half = sm in ((5, 3), (6, 0), (6, 2)) or sm >= (7, 0)
    int8 = sm == (6, 1) or sm >= (7, 0)
    return tuple(name for name, fast in (("fp16", half), ("int8", int8)) if fast)


def capability(sm: str) -> Tuple[int, int]:
    """A compute capability as numbers.

    >>> capability("8.7")
    (8, 7)
    """
    major, minor = sm.split(".")
    return int(major), int(minor)
