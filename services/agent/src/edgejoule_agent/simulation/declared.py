"""What the simulated boards are. Nobody here has one: what no source tells is an assumption, and marked.

[1206]  dusty-nv/jetson-inference, issue 1206: tegrastats of a Nano that runs SSD at GR3D 99 % and 921 MHz
[orin]  an owner's tegrastats of an Orin Nano in 25 W, GR3D 99 % at 911 MHz, decoding a language model
[tree]  the idle readings in the board's tree, themselves chosen after listings by owners
[specs] NVIDIA's data sheets: memory; 67 sparse INT8 TOPS of the Orin Nano at 1.02 GHz
[yolo]  Ultralytics' guide for Jetson: YOLO11s (21.5 GFLOPs) on an Orin Nano in 13.29, 7.30 and 5.25 ms
[trtx]  wang-xinyu/tensorrtx, issue 1160: YOLOv5s (16.5 GFLOPs) on a Nano in FP16, about 70 ms
"""

from typing import Mapping, NamedTuple, Tuple


class Part(NamedTuple):
    """A consumer of power: always ``idle_w``, and ``busy_w`` more at full load and the unit's top clock."""

    name: str
    idle_w: float
    busy_w: float
    follows: str  # "gpu": load, clock and voltage of the GPU; "cpu": how much of the time inferences take


class Gpu(NamedTuple):
    """What the roofline needs of a GPU."""

    flops_per_clock: Mapping[str, float]  # all cores together, by precision; dense
    reach: Mapping[str, float]  # share of that which real networks reach
    bandwidth_bytes_s: float
    bandwidth_reach: float
    launch_s: float  # between two layers
    top_hz: float  # the clock at which the power of full load was seen


class Thermal(NamedTuple):
    """Junction - heat sink - ambient."""

    junction_j_k: float
    sink_j_k: float
    junction_to_sink_k_w: float
    sink_to_ambient_k_w: float
    fan_k_w: float  # sink to ambient with the fan at full speed; the same where there is none


class Declared(NamedTuple):
    """One simulated board."""

    name: str
    tree: str
    gpu: Gpu
    parts: Tuple[Part, ...]
    rails: Mapping[str, Tuple[str, ...]]  # label -> parts that it feeds
    least_voltage_share: float  # of the GPU's voltage, at its least clock
    thermal: Thermal
    zone_step_mc: float  # resolution of the temperatures
    shunt_ohm: float


AMBIENT_C = 25.0  # assumed

NANO = Declared(
    name="nano",
    tree="nano_jp4",
    gpu=Gpu(
        flops_per_clock={"fp32": 2 * 128, "fp16": 4 * 128},  # multiply-add; two halves at once
        reach={"fp32": 0.6, "fp16": 0.5},  # fp16: [trtx]; fp32: assumed
        bandwidth_bytes_s=25.6e9,  # [specs]
        bandwidth_reach=0.75,  # assumed
        launch_s=20e-6,  # assumed
        top_hz=921.6e6,
    ),
    parts=(  # [tree] and [1206], 4531 mW in all, 1256 of the GPU, 466 of the CPU; idle less than busy is the load's
        Part("gpu", 0.041, 1.215, "gpu"),
        Part("cpu", 0.327, 0.139, "cpu"),
        Part("rest", 1.347, 1.462, "gpu"),  # memory, regulators and input-output; that it follows the GPU: assumed
    ),
    rails={"POM_5V_IN": ("gpu", "cpu", "rest"), "POM_5V_GPU": ("gpu",), "POM_5V_CPU": ("cpu",)},
    least_voltage_share=0.7,  # assumed
    thermal=Thermal(  # 43 °C of the GPU in [1206]; how it divides, and the capacities: assumed
        junction_j_k=4.0, sink_j_k=80.0, junction_to_sink_k_w=0.8, sink_to_ambient_k_w=3.2, fan_k_w=3.2
    ),
    zone_step_mc=500,  # [1206]
    shunt_ohm=0.005,  # the currents of listings are multiples of 8 mA
)

ORIN_NANO = Declared(
    name="orin-nano",
    tree="orin_nano_jp6",
    gpu=Gpu(
        flops_per_clock={"fp32": 2 * 1024, "fp16": 16 * 1024, "int8": 32 * 1024},  # [specs]; half of sparse
        reach={"fp32": 0.77, "fp16": 0.18, "int8": 0.125},  # [yolo]
        bandwidth_bytes_s=102e9,  # [specs]
        bandwidth_reach=0.75,  # assumed
        launch_s=8e-6,  # assumed
        top_hz=918e6,
    ),
    parts=(  # [tree] and [orin], 10475 mW in all, 3757 of VDD_CPU_GPU_CV, 3055 of VDD_SOC; how it divides: assumed
        Part("gpu", 0.2, 3.1, "gpu"),
        Part("cpu", 0.397, 0.06, "cpu"),
        Part("soc", 1.513, 1.542, "gpu"),
        Part("rest", 2.388, 1.275, "gpu"),
    ),
    rails={"VDD_IN": ("gpu", "cpu", "soc", "rest"), "VDD_CPU_GPU_CV": ("gpu", "cpu"), "VDD_SOC": ("soc",)},
    least_voltage_share=0.7,  # assumed
    thermal=Thermal(  # 60 °C of the GPU in [orin]; how it divides, and the capacities: assumed
        junction_j_k=8.0, sink_j_k=120.0, junction_to_sink_k_w=0.7, sink_to_ambient_k_w=3.3, fan_k_w=1.6
    ),
    zone_step_mc=31.25,  # [tree]
    shunt_ohm=0.005,  # [tree]
)

BOARDS = {board.name: board for board in (NANO, ORIN_NANO)}
