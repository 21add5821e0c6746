"""The unit for an agent without Docker, by systemd's own check and by the agent's own settings."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgejoule_agent.sampler import PRIORITY

ROOT = Path(__file__).parents[3]
UNIT = (ROOT / "l4t" / "edgejoule-agent.service").read_text()


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
