"""The units for boards, by systemd's own check, by the agent's own settings and by what else is to fit them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

import edgejoule_power
import power
from edgejoule_agent import power_mode
from edgejoule_agent.sampler import PRIORITY

ROOT = Path(__file__).parents[3]
UNIT = (ROOT / "l4t" / "edgejoule-agent.service").read_text()
LISTENS = (ROOT / "l4t" / "edgejoule-power.socket").read_text()
SERVES = (ROOT / "l4t" / "edgejoule-power@.service").read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_no_fault_in_the_unit(tmp_path: Path) -> None:
    # the agent is not installed where the unit says
    found, count = re.subn(r"^ExecStart=\S+", "ExecStart=/bin/true", UNIT, flags=re.MULTILINE)
    assert count == 1
    for text, faults in ((found, False), (found.replace("KillMode", "KillMood"), True)):
        unit = tmp_path / "edgejoule-agent.service"
        unit.write_text(text)
        command = ["systemd-analyze", "verify", "--man=no", str(unit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("edgejoule-agent.service" in done.stdout + done.stderr) == faults, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_systemd_finds_no_fault_in_the_helpers_units(tmp_path: Path) -> None:
    texts = {"edgejoule-power.socket": LISTENS, "edgejoule-power@.service": SERVES}
    command = ["systemd-analyze", "verify", "--man=no", *(str(tmp_path / name.replace("@", "@1")) for name in texts)]
    for wrong in (None, *texts):
        for name, text in texts.items():
            whole = re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", text, flags=re.MULTILINE)
            faulty = re.sub(r"^(Accept|RuntimeMaxSec)=", r"\1s=", whole, flags=re.MULTILINE)
            (tmp_path / name).write_text(faulty if name == wrong else whole)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ("edgejoule-power" in done.stdout + done.stderr) == (wrong is not None), done.stderr


def value(unit: str, name: str) -> str:
    found = re.findall(rf"^{name}[= ](.*)$", unit, re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_helper_its_units_the_agent_and_the_images_mean_the_same() -> None:
    assert value(LISTENS, "ListenStream") == power.SOCKET
    for file in ROOT.glob("l4t/*/Dockerfile"):
        assert value(LISTENS, "ExecStartPost") == f"/bin/chown {value(file.read_text(), 'USER')} {power.SOCKET}"
    *interpreter, program = value(SERVES, "ExecStart").split()
    assert interpreter == ["/usr/bin/python3", "-I", "-S"]
    assert power.PLACES[program] == Path(edgejoule_power.__file__).name
    assert (power.LOCK, power.SETTING) == (edgejoule_power.LOCK, power_mode.SOCKET)
    longest_s = edgejoule_power.ASKING_S + 2 * edgejoule_power.PROGRAM_S
    assert longest_s < power_mode.ANSWER_S < float(value(SERVES, "RuntimeMaxSec"))


def test_unit_sets_what_the_agent_reads_and_lies_where_the_page_puts_it() -> None:
    settings = (ROOT / "docs" / "reference" / "settings.md").read_text()
    page = (ROOT / "docs" / "how-to" / "boards.md").read_text()
    given = dict(re.findall(r"^Environment=(\w+)=(\S+)$", UNIT, re.MULTILINE))
    assert given.keys() == {"EDGEJOULE_TOKEN_FILE", "EDGEJOULE_GATEWAY_CA", "EDGEJOULE_AGENT_STATE"}
    for name, path in given.items():
        assert re.search(rf"^\| .*`{name}`.*\| `edgejoule-agent` \|", settings, re.MULTILINE)
        assert path in page
    assert f"\nLimitRTPRIO={PRIORITY}\n" in UNIT
    for path in re.findall(r"^(?:EnvironmentFile|ExecStart)=(\S+)$", UNIT, re.MULTILINE):
        assert path in page
