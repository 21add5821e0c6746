"""What the probe learns of each board's tree, and what it says where it can learn nothing."""

import os
import shutil
import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgejoule_agent import boards, engines, host, jetson
from edgejoule_agent.simulation import trees

EXPECTED = {
    "nano_jp4": {
        "model": "NVIDIA Jetson Nano Developer Kit",
        "board": "Jetson Nano 4 GB",
        "module": "p3448-0000",
        "soc": "tegra210",
        "sm": "5.3",
        "l4t": "32.7.1",
        "jetpack": "4.6.1",
        "tensorrt": "8.2.1",
        "cuda": "10.2.300",
        "cudnn": "8.2.1",
        "power_mode": "MAXN",
        "power_mode_id": 0,
        "cpus_online": "0-3",
        "cpu_khz": {"policy0": [102000, 1479000]},
        "gpu_hz": {"57000000.gpu": [76800000, 921600000]},
        "clocks_locked": False,
        "fan": "by temperature",
        "swap_total_mb": 2078,
        "zram_total_mb": 2078,
    },
    "nano_2gb_jp4": {
        "board": "Jetson Nano 2 GB",
        "module": "p3448-0003",
        "sm": "5.3",
        "power_mode": "5W",
        "power_mode_id": 1,
        "cpus_online": "0-1",
    },
    "xavier_nx_jp4": {
        "board": "Jetson Xavier NX",
        "module": "p3668-0000",
        "soc": "tegra194",
        "sm": "7.2",
        "l4t": "32.7.3",
        "jetpack": "4.6.3",
        "power_mode": "MODE_15W_6CORE",
        "power_mode_id": 2,
        "fan": "profile quiet",
        "gpu_hz": {"17000000.gv11b": [114750000, 1109250000]},
        "tensorrt": "8.2.1",
    },
    "xavier_nx_jp5": {
        "board": "Jetson Xavier NX",
        "module": "p3668-0001",
        "l4t": "35.4.1",
        "jetpack": "5.1.2",
        "power_mode": "MODE_20W_6CORE",
        "power_mode_id": 8,
        "fan": "default profile quiet",
        "tensorrt": "8.5.2",
        "cuda": "11.4.315",
        "cudnn": "8.6.0",
    },
    "orin_nano_jp5": {
        "board": "Jetson Orin Nano 8 GB",
        "module": "p3767-0005",
        "soc": "tegra234",
        "sm": "8.7",
        "jetpack": "5.1.2",
        "power_mode": "15W",
        "power_mode_id": 0,
        "gpu_hz": {"17000000.ga10b": [306000000, 624750000]},
    },
    "orin_nano_jp6": {
        "board": "Jetson Orin Nano 8 GB",
        "module": "p3767-0005",
        "l4t": "36.4.3",
        "jetpack": "6.2",
        "power_mode": "25W",
        "power_mode_id": 1,
        "fan": "default profile cool",
        "tensorrt": "10.3.0",
        "cuda": "12.6.11",
        "cudnn": "9.3.0",
        "cpu_khz": {"policy0": [729600, 1344000], "policy4": [729600, 1344000]},
    },
    "agx_orin_jp6": {
        "board": "Jetson AGX Orin 64 GB",
        "module": "p3701-0005",
        "l4t": "36.3.0",
        "jetpack": "6.0",
        "power_mode": "MAXN",
        "power_mode_id": 0,
        "clocks_locked": True,
        "cpus_online": "0-11",
        "swap_total_mb": 0,
        "zram_total_mb": 0,
    },
    "thor": {
        "board": "Jetson Thor T5000",
        "module": "p3834-0008",
        "soc": "tegra264",
        "sm": "11.0",
        "jetpack": "7.0",
        "power_mode": "120W",
        "power_mode_id": 1,
        "gpu_hz": {"gpu-gpc-0": [315000000, 1575000000]},
        "tensorrt": "10.13.3",
        "cuda": "13.0.0",
        "cudnn": "9.12.0",
    },
}
PROCESSORS = {
    "nano_jp4": "Jetson Nano 4 GB (tegra210, SM 5.3)",
    "orin_nano_jp6": "Jetson Orin Nano 8 GB (tegra234, SM 8.7)",
    "agx_orin_jp6": "Jetson AGX Orin 64 GB (tegra234, SM 8.7)",
    "thor": "Jetson Thor T5000 (tegra264, SM 11.0)",
}


@pytest.mark.parametrize("name", trees.JETSONS)
def test_probe_learns_all_of_a_board(name, tmp_path):
    found = jetson.probe(trees.write(name, tmp_path))
    assert found["absent"] == {}
    assert {key: found[key] for key in EXPECTED[name]} == EXPECTED[name]
    assert None not in found.values()


@pytest.mark.parametrize("name", sorted(trees.BOARDS))
def test_probe_is_equal_when_only_load_and_heat_change(name, tmp_path):
    root = trees.write(name, tmp_path)
    before = host.probe(root)
    moving = ("cur_freq", "temp", "load", "_input", "_event_cnt", "cur_state", "cur_pwm", "target_pwm", "rpm")
    changed = 0
    for folder, _, files in os.walk(root):
        for file in files:
            if file.endswith(moving):
                with open(os.path.join(folder, file), "w") as open_file:
                    open_file.write("12345\n")
                changed += 1
    assert changed > 5
    assert host.probe(root) == before


def test_probe_of_another_host_is_none_and_its_device_as_ever(tmp_path):
    root = trees.write("x86_host", tmp_path)
    assert jetson.probe(root) is None
    found = host.probe(root)
    assert set(found) == {"id", "hardware", "environment"}
    assert set(found["hardware"]) == {"machine", "processor", "features", "runtimes"}
    assert "tensorrt" not in found["hardware"]["runtimes"]
    assert set(host.hardware_class("onnxruntime", root)) == {
        *("machine", "processor", "features", "runtime", "runtime_version")
    }
    assert len(found["environment"]) == 14


@pytest.mark.parametrize("name", sorted(PROCESSORS))
def test_engines_are_bound_to_board_l4t_and_tensorrt(name, tmp_path):
    root = trees.write(name, tmp_path)
    here = host.hardware_class("tensorrt", root)
    assert here["processor"] == PROCESSORS[name]
    assert here["l4t"] == EXPECTED[name].get("l4t", jetson.probe(root)["l4t"])
    assert here["runtime_version"] == jetson.probe(root)["tensorrt"]
    assert engines.describe(here).endswith(f"with tensorrt {here['runtime_version']} on L4T {here['l4t']}")


def test_measurements_are_bound_to_mode_clocks_and_fan(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    before = host.environment(root)
    write(root, "var/lib/nvpmodel/status", "pmode:0002\n")
    write(root, "sys/class/devfreq/17000000.gpu/min_freq", "918000000\n")
    write(root, "etc/nvfancontrol.conf", "FAN_DEFAULT_PROFILE quiet\n")
    after = host.environment(root)
    changed = {key for key in after if after[key] != before[key]}
    assert changed == {"power_mode", "power_mode_id", "gpu_hz", "fan"}
    assert after["power_mode"] == "MAXN_SUPER"


@pytest.mark.parametrize("clocks", ["2201600\n", None])
def test_clocks_of_a_cluster_that_is_off_are_none_of_the_boards(tmp_path, clocks):
    """As in a mode of fewer cores: what the kernel keeps of it is of before, or cannot be read."""
    root = trees.write("agx_orin_jp6", tmp_path)
    before = jetson.probe(root)
    folder = "sys/devices/system/cpu/cpufreq/policy8"
    write(root, f"{folder}/affected_cpus", "\n")
    for name in ("scaling_min_freq", "scaling_max_freq"):
        path = os.path.realpath(os.path.join(root, folder, name))
        os.remove(path)
        if clocks is None:
            os.makedirs(path)  # not even root can read a folder as a file
        else:
            write(root, f"{folder}/{name}", "729600\n" if name == "scaling_min_freq" else clocks)
    found = jetson.probe(root)
    assert found["cpu_khz"] == {name: khz for name, khz in before["cpu_khz"].items() if name != "policy8"}
    assert found["clocks_locked"] == before["clocks_locked"]


def test_clocks_are_locked_only_when_all_of_them_are(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    write(root, "sys/class/devfreq/17000000.gpu/min_freq", "918000000\n")
    assert jetson.probe(root)["clocks_locked"] is False
    for policy in ("policy0", "policy4"):
        assert jetson.probe(root)["clocks_locked"] is False
        write(root, f"sys/devices/system/cpu/cpufreq/{policy}/scaling_min_freq", "1344000\n")
    assert jetson.probe(root)["clocks_locked"] is True


# --- where little can be learnt ---------------------------------------------------------------------


def write(root, path, text):
    full = os.path.join(root, path)
    os.makedirs(os.path.dirname(full), exist_ok=True)
    with open(full, "wb") as file:
        file.write(text if isinstance(text, bytes) else text.encode())


def test_unknown_board_keeps_its_model_and_names_its_parts(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    write(root, "proc/device-tree/compatible", b"vendor,box\0nvidia,p9999-0000+p8888-0001\0nvidia,tegra234\0")
    found = jetson.probe(root)
    assert (found["board"], found["module"], found["sm"]) == (None, None, "8.7")
    assert found["absent"]["board"] == "no known module among p9999-0000, p8888-0001 in the device tree"
    assert host.hardware(root)["processor"] == f"{found['model']} (tegra234, SM 8.7)"


def test_unknown_chip_is_said_with_its_names(tmp_path):
    root = trees.write("thor", tmp_path)
    write(root, "proc/device-tree/compatible", b"nvidia,p1-0\0nvidia,tegra999\0")
    found = jetson.probe(root)
    assert (found["soc"], found["sm"]) == (None, None)
    assert "nvidia,tegra999" in found["absent"]["sm"]
    assert host.hardware(root)["processor"] == "NVIDIA Jetson AGX Thor Developer Kit"


def test_file_name_of_the_device_tree_tells_where_compatible_does_not(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    write(root, "proc/device-tree/compatible", b"nvidia,quill\0nvidia,tegra186\0")  # as on a TX2 with r32
    write(root, "proc/device-tree/nvidia,dtsfilename", b"/kernel-dts/tegra186-quill-p3310-1000-c03-00-base.dts\0")
    found = jetson.probe(root)
    assert (found["board"], found["module"], found["sm"]) == ("Jetson TX2", "p3310-1000", "6.2")


def test_unknown_release_has_no_jetpack_and_says_why(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    write(root, "etc/nv_tegra_release", "# R36 (release), REVISION: 9.1, GCID: 1\n")
    found = jetson.probe(root)
    assert (found["l4t"], found["jetpack"]) == ("36.9.1", None)
    assert found["absent"] == {"jetpack": "L4T 36.9.1 is in no table here; the newest is 39.2.1"}


def test_strange_release_file_is_quoted(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    write(root, "etc/nv_tegra_release", "Tegra for Yocto\n")
    found = jetson.probe(root)
    assert (found["l4t"], found["jetpack"]) == (None, None)
    assert "'Tegra for Yocto', which names no release" in found["absent"]["l4t"]


def test_container_that_hides_everything_is_no_jetson_and_one_file_makes_it_one(tmp_path):
    root = str(tmp_path)
    assert jetson.probe(root) is None
    write(root, "etc/nv_tegra_release", "# R36 (release), REVISION: 4.3, GCID: 38968081\n")
    found = jetson.probe(root)
    assert (found["l4t"], found["jetpack"]) == ("36.4.3", "6.2")
    unknown = {key for key, value in found.items() if value is None}
    assert unknown == set(found["absent"]) == set(found) - {"l4t", "jetpack", "absent"}
    assert found["absent"]["board"] == "/proc/device-tree/compatible: No such file or directory"
    assert found["absent"]["clocks_locked"] == "the clocks of the CPU are not known"
    assert host.hardware(root)["processor"] == "unknown Jetson"


def test_device_tree_alone_makes_a_jetson(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    os.remove(os.path.join(root, "etc/nv_tegra_release"))
    found = jetson.probe(root)
    assert found["board"] == "Jetson Orin Nano 8 GB"
    assert set(found["absent"]) == {"l4t", "jetpack"}


@pytest.mark.parametrize(
    ("path", "facts"),
    [
        ("etc/nv_tegra_release", {"l4t", "jetpack"}),
        ("etc/nvpmodel.conf", {"power_mode", "power_mode_id"}),
        ("var/lib/nvpmodel/status", {"power_mode", "power_mode_id"}),
        ("sys/class/devfreq/57000000.gpu/max_freq", {"gpu_hz", "clocks_locked"}),
        ("sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq", {"cpu_khz", "clocks_locked"}),
        ("sys/devices/system/cpu/online", {"cpus_online"}),
        ("proc/swaps", {"swap_total_mb", "zram_total_mb"}),
        ("sys/devices/pwm-fan/temp_control", {"fan"}),
        ("usr/local/cuda/version.txt", {"cuda"}),
        ("proc/device-tree/model", {"model"}),
    ],
)
def test_unreadable_file_costs_its_own_facts_only(path, facts, tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    real = os.path.realpath(os.path.join(root, path))
    os.remove(real)
    os.makedirs(real)  # not even root can read a folder as a file
    found = jetson.probe(root)
    assert {key for key, value in found.items() if value is None} == set(found["absent"]) == facts
    assert all(reason for reason in found["absent"].values())


def test_numbers_that_are_none_are_quoted(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    write(root, "sys/class/devfreq/57000000.gpu/max_freq", "<unsupported>\n")
    found = jetson.probe(root)
    assert found["absent"]["gpu_hz"] == (
        "/sys/class/devfreq/57000000.gpu/max_freq says '<unsupported>', which is no number"
    )


# --- libraries --------------------------------------------------------------------------------------


def test_version_of_the_module_wins_over_files(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    assert jetson.probe(root, "8.2.1.8")["tensorrt"] == "8.2.1.8"


def test_versions_come_from_packages_where_no_file_tells(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    shutil.rmtree(os.path.join(root, jetson.LIBRARIES))
    found = jetson.probe(root)
    assert (found["tensorrt"], found["cudnn"]) == ("10.3.0.30", "9.3.0")
    status = "Package: libnvinfer10\nStatus: deinstall ok config-files\nVersion: 10.3.0.30-1+cuda12.5\n"
    write(root, jetson.DPKG, status)
    found = jetson.probe(root)
    assert found["tensorrt"] is None
    assert "not installed" in found["absent"]["tensorrt"]
    assert host.hardware_class("tensorrt", root)["runtime_version"] == "absent"


def test_newest_of_several_files_counts_as_numbers_do(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    for version in ("8", "8.6.2", "10.3.0", "9.9.9"):
        write(root, f"{jetson.LIBRARIES}/libnvinfer.so.{version}", "")
    assert jetson.probe(root)["tensorrt"] == "10.3.0"


# --- power modes ------------------------------------------------------------------------------------


def test_mode_is_named_by_this_boards_own_table(tmp_path):
    """The id 1 is another mode on each of them."""
    names = {}
    for name in ("nano_jp4", "xavier_nx_jp5", "orin_nano_jp5", "orin_nano_jp6", "agx_orin_jp6", "thor"):
        root = trees.write(name, tmp_path / name)
        write(root, "var/lib/nvpmodel/status", "pmode:0001\n")
        names[name] = jetson.probe(root)["power_mode"]
    assert list(names.values()) == ["5W", "MODE_15W_4CORE", "7W", "25W", "MODE_15W", "120W"]


def test_default_mode_is_on_where_none_was_ever_set(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    os.remove(os.path.join(root, "var/lib/nvpmodel/status"))
    assert jetson.probe(root)["power_mode"] == "25W"
    write(root, "etc/nvpmodel.conf", "< POWER_MODEL ID=0 NAME=15W >\n")
    assert "declares no default" in jetson.probe(root)["absent"]["power_mode"]


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (
            "pmode:0009\n",
            "mode 9 is on, which /etc/nvpmodel.conf does not declare (0: 15W, 1: 25W, 2: MAXN_SUPER)",
        ),
        ("", "/var/lib/nvpmodel/status says '', which names no mode"),
        ("pmode:", "/var/lib/nvpmodel/status says 'pmode:', which names no mode"),
    ],
)
def test_mode_that_is_not_declared_is_none(status, reason, tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    write(root, "var/lib/nvpmodel/status", status)
    found = jetson.probe(root)
    assert (found["power_mode"], found["power_mode_id"]) == (None, None)
    assert found["absent"]["power_mode"] == reason


def test_power_modes_are_read_with_fields_in_any_order_and_comments_left_out():
    text = (
        "# < POWER_MODEL ID=7 NAME=COMMENT >\n<POWER_MODEL NAME=MAXN ID=3>\n < POWER_MODEL ID=0 NAME=15W >\n"
        "< POWER_MODEL ID=x NAME=WRONG >\n< POWER_MODEL ID=4 >\n< PARAM TYPE=FILE NAME=CPU_ONLINE >\n"
    )
    assert jetson.parse_power_modes(text) == jetson.PowerModes({3: "MAXN", 0: "15W"}, None)


@given(st.text())
def test_power_files_are_parsed_whatever_stands_there(text):
    modes = jetson.parse_power_modes(text)
    assert all(isinstance(number, int) and name for number, name in modes.names.items())
    status = jetson.parse_power_status(text)
    assert status is None or status >= 0


NAMES = st.text(alphabet="ABCMNWXZ_0123456789", min_size=1, max_size=20)


@given(
    st.dictionaries(st.integers(0, 99), NAMES, min_size=1, max_size=12),
    st.integers(0, 99),
    st.sampled_from(["\n", "\n\n", "\r\n", "\nGPU MAX_FREQ -1\n", "\n# a remark\n"]),
)
def test_power_modes_are_what_was_written(names, default, between):
    lines = [f"< POWER_MODEL ID={number} NAME={name} >" for number, name in names.items()]
    text = between.join([*lines, f"< PM_CONFIG DEFAULT={default} >"])
    assert jetson.parse_power_modes(text) == jetson.PowerModes(names, default)


@given(st.integers(0, 999999), st.sampled_from(["", " fmode:quiet", "\n"]))
def test_power_status_is_what_was_written(number, rest):
    assert jetson.parse_power_status(f"pmode:{number:04d}{rest}") == number


# --- fan --------------------------------------------------------------------------------------------


def test_fan_that_a_users_daemon_drives_is_one_and_the_same_fact_at_every_duty(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    write(root, "sys/devices/pwm-fan/temp_control", "0\n")
    found = []
    for duty in ("80", "112"):
        write(root, "sys/devices/pwm-fan/target_pwm", f"{duty}\n")
        found.append(host.environment(root))
    assert found[0] == found[1]
    assert found[0]["fan"] == "by hand, or by a program"


def test_fan_profile_that_runs_wins_over_the_default(tmp_path):
    root = trees.write("orin_nano_jp6", tmp_path)
    write(root, "var/lib/nvfancontrol/status", "FAN1:FAN_PROFILE:quiet\nFAN1:FAN_GOVERNOR:cont\n")
    assert jetson.probe(root)["fan"] == "profile quiet"


def test_no_fan_is_said(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    shutil.rmtree(os.path.join(root, "sys/devices/pwm-fan"))
    assert "nor /sys/devices/pwm-fan" in jetson.probe(root)["absent"]["fan"]


# --- precisions -------------------------------------------------------------------------------------


def fake_tensorrt(version, **has):
    """As much of the bindings as is asked; ``has``: the properties of a builder, gone in TensorRT 11."""
    module = types.ModuleType("tensorrt")
    module.__version__ = version
    module.Logger = type("Logger", (), {"ERROR": 1, "__init__": lambda self, severity: None})
    module.Builder = type("Builder", (), {"__init__": lambda self, logger: None, **has})
    return module


@pytest.mark.parametrize(
    ("module", "answer"),
    [
        (
            fake_tensorrt("8.2.1.8", platform_has_fast_int8=False, platform_has_fast_fp16=True),
            {"fast_int8": False, "fast_fp16": True, "tensorrt": "8.2.1.8", "learnt": "TensorRT 8.2.1.8"},
        ),
        (
            fake_tensorrt("11.1.0"),
            {"fast_int8": None, "fast_fp16": None, "tensorrt": "11.1.0", "learnt": "TensorRT 11.1.0 does not tell"},
        ),
    ],
)
def test_tensorrt_is_asked_for_what_it_has_words_for(module, answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    assert jetson.ask_tensorrt({}, None) == answer


def test_tensorrt_that_fails_is_a_reason(monkeypatch):
    module = fake_tensorrt("8.6.2")
    del module.Builder
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    found = jetson.ask_tensorrt({}, None)
    assert (found["fast_int8"], found["fast_fp16"], found["tensorrt"]) == (None, None, None)
    assert "cannot be asked (AttributeError" in found["learnt"]


def test_child_answers_for_a_module_that_only_it_loads(tmp_path, monkeypatch):
    source = (
        "__version__ = '8.5.2.2'\n"
        "class Logger:\n    ERROR = 1\n    def __init__(self, severity): pass\n"
        "class Builder:\n    platform_has_fast_int8 = platform_has_fast_fp16 = True\n"
        "    def __init__(self, logger): pass\n"
    )
    write(str(tmp_path), "tensorrt.py", source)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.syspath_prepend(str(tmp_path))
    jetson.ask_in_child.cache_clear()
    try:
        told = {"fast_int8": True, "fast_fp16": True, "tensorrt": "8.5.2.2", "learnt": "TensorRT 8.5.2.2"}
        assert jetson.ask_in_child() == told
        assert "tensorrt" not in sys.modules
        jetson.ask_in_child.cache_clear()
        write(str(tmp_path), "tensorrt.py", "import os\nos._exit(3)\n")  # bindings that take their process with them
        assert "cannot be asked" in jetson.ask_in_child()["learnt"]
    finally:
        jetson.ask_in_child.cache_clear()


@pytest.mark.parametrize(
    ("soc", "answer", "found"),
    [
        # TensorRT's word counts, also against the table
        ("tegra210", (True, True, "TensorRT 8.2.1"), (True, True, "TensorRT 8.2.1 reports it")),
        (
            "tegra210",
            (None, None, "TensorRT 11.1 does not tell"),
            (False, True, "by SM 5.3: TensorRT 11.1 does not tell"),
        ),
        ("tegra186", (None, None, "no"), (False, True, "by SM 6.2: no")),
        ("tegra194", (None, None, "no"), (True, True, "by SM 7.2: no")),
        ("tegra234", (None, True, "no"), (True, True, "by SM 8.7: no")),
        ("tegra264", (None, None, "no"), (True, True, "by SM 11.0: no")),
        (None, (None, None, "no"), (None, None, "unknown: no, and the GPU is unknown")),
    ],
)
def test_precisions_are_tensorrts_or_else_the_sms(soc, answer, found):
    keys = ("fast_int8", "fast_fp16", "learnt")
    asked = dict(zip(keys, answer), tensorrt="8.2.1")
    assert jetson.precisions(soc, asked) == dict(zip(keys, found), tensorrt="8.2.1")


def test_libraries_without_the_module_are_no_tensorrt(tmp_path):
    root = trees.write("nano_jp4", tmp_path)
    assert jetson.probe(root)["tensorrt"] == "8.2.1"
    found = jetson.probe(root, module_is_here=False)
    assert found["tensorrt"] is None
    assert found["absent"]["tensorrt"] == (
        "TensorRT 8.2.1 is there, but not its Python module tensorrt for this interpreter"
    )


@pytest.mark.parametrize("name", trees.JETSONS)
def test_device_of_a_board_tells_its_precisions(name, tmp_path):
    found = host.probe(trees.write(name, tmp_path))["precisions"]
    assert found["fast_int8"] is (not name.startswith("nano"))
    assert found["fast_fp16"] is True


# --- the table --------------------------------------------------------------------------------------


def test_modules_and_names_stand_in_the_table_once():
    modules = [module for board in boards.BOARDS for module in board.modules]
    assert len(modules) == len(set(modules))
    names = [board.name for board in boards.BOARDS]
    assert len(names) == len(set(names))


@pytest.mark.parametrize("board", boards.BOARDS, ids=lambda board: board.name)
def test_board_has_a_known_chip_and_one_way_to_its_power(board):
    assert boards.soc_named(board.soc) is not None
    rails = board.rails
    assert bool(rails.why) is (rails.total is None)  # a reason if and only if there is no total
    assert not (rails.total and rails.add)
    assert len(set(rails.add)) == len(rails.add)


@pytest.mark.parametrize("name", [name for name in trees.JETSONS if name != "nano_2gb_jp4"])
def test_rails_of_the_table_are_on_the_board_and_whole(name, tmp_path):
    """What the table adds holds no rail twice: no sum is more than the total that the tree's author gave."""
    root = trees.write(name, tmp_path)
    labels = set()
    for folder, _, files in os.walk(os.path.join(root, "sys")):
        for file in files:
            if file.startswith("rail_name_") or (file.startswith("in") and file.endswith("_label")) or file == "label":
                with open(os.path.join(folder, file)) as open_file:
                    labels.add(open_file.read().strip())
    rails = boards.board_of([jetson.probe(root)["module"]])[0].rails
    assert {rails.total, *rails.add} - {None} <= labels
    assert not {"NC", "sum of shunt voltages", "VDDQ_VDD2_1V8AO"} & set(rails.add)
