"""The fixture trees are what the sensors' and the probe's tests stand on: whole, linked as on a board, consistent."""

import glob
import os
import re

import pytest

from edgejoule_agent.simulation import trees as boards


def text(*path):
    with open(os.path.join(*path)) as file:
        return file.read().strip()


@pytest.mark.parametrize("name", sorted(boards.BOARDS))
def test_tree_has_no_dangling_link_when_it_is_moved(name, tmp_path):
    boards.write(name, tmp_path / "made")
    (tmp_path / "made").rename(tmp_path / "moved")
    links = [
        os.path.join(folder, entry)
        for folder, folders, files in os.walk(str(tmp_path / "moved"))
        for entry in folders + files
        if os.path.islink(os.path.join(folder, entry))
    ]
    assert links
    assert [link for link in links if not os.path.exists(link)] == []


@pytest.mark.parametrize("name", ["nano_jp4", "xavier_nx_jp4"])
def test_power_of_the_old_driver_is_the_product_of_its_neighbours(name, tmp_path):
    root = boards.write(name, tmp_path)
    found = glob.glob(os.path.join(root, "sys/bus/i2c/drivers/ina3221x/*/iio:device*/in_power*_input"))
    assert len(found) == 3
    for power in found:
        mv, ma = (int(text(power.replace("in_power", kind))) for kind in ("in_voltage", "in_current"))
        assert int(text(power)) == mv * ma // 1000


@pytest.mark.parametrize(
    ("name", "chips", "shunt_uohm"),
    [("xavier_nx_jp5", 1, 5000), ("orin_nano_jp5", 1, 5000), ("orin_nano_jp6", 1, 5000), ("agx_orin_jp6", 2, 2000)],
)
def test_readings_of_the_new_driver_are_whole_steps_of_the_sensor(name, chips, shunt_uohm, tmp_path):
    root = boards.write(name, tmp_path)
    found = glob.glob(os.path.join(root, "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*"))
    assert len(found) == chips
    for chip in found:
        for channel in (1, 2, 3):
            assert int(text(chip, f"shunt{channel}_resistor")) == shunt_uohm
            assert int(text(chip, f"in{channel}_input")) % 8 == 0  # the INA3221's step is 8 mV on the bus ...
            assert int(text(chip, f"curr{channel}_input")) * shunt_uohm % 40000 == 0  # ... and 40 µV on the shunt


def test_what_is_unreadable_raises_an_oserror(tmp_path):
    root = boards.write("thor", tmp_path)
    zone = next(z for z in glob.glob(root + "/sys/class/thermal/thermal_zone*") if text(z, "type") == "gpu-thermal")
    with pytest.raises(OSError, match="directory"):
        text(zone, "temp")


def test_every_source_that_a_fact_cites_is_listed_and_the_other_way_round():
    with open(boards.__file__, encoding="utf-8") as file:
        code = file.read().replace(boards.__doc__, "")
    listed = re.findall(r"^    (\[[\w-]+\])", boards.__doc__, re.MULTILINE)
    remarks = "".join(re.findall(r"#.*|\"{3}.*\"{3}", code))
    assert len(set(listed)) == len(listed)
    assert set(re.findall(r"\[[\w-]+\]", remarks)) == set(listed)


def test_head_counts_the_facts_whose_source_has_no_address():
    with open(boards.__file__, encoding="utf-8") as file:
        code = file.read().replace(boards.__doc__, "")
    counted = re.search(r"(\d+) remarks say so", boards.__doc__).group(1)
    assert code.count("[seen]") == int(counted)


def test_every_numbered_source_has_an_address():
    for source in re.findall(r"^    \[\d+\].*(?:\n {9}.*)*", boards.__doc__, re.MULTILINE):
        assert re.search(r"https://\S+|[\w.-]+/[\w.-]+(?:,|\n)|Message-Id \S+@\S+", source), source


def test_a_processor_says_its_own_variant_and_revision(tmp_path):
    found = {name: text(boards.write(name, tmp_path / name), "proc/cpuinfo") for name in boards.JETSONS}
    steps = {
        name: re.search(r"variant\t: (0x\d)(?s:.*?)revision\t: (\d)", told).groups() for name, told in found.items()
    }
    assert steps["nano_jp4"] == ("0x1", "1")
    assert steps["xavier_nx_jp4"] == ("0x0", "0")
    assert steps["orin_nano_jp6"] == ("0x0", "1")
    assert [name for name in found if " cpuid " in found[name].replace("\n", " ")] == [
        *("xavier_nx_jp5", "orin_nano_jp5", "orin_nano_jp6", "agx_orin_jp6", "thor")
    ]
