"""What `make jetson-deploy POWER_MODES=1` leaves on a board beside Docker's: root's part of power modes.

Three files that systemd reads or starts; docs/adr/0017-root-changes-power-modes-behind-a-socket.md says why.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from context import HERE, tar_of

SETTING = "EDGEJOULE_POWER_SOCKET"  # of the agent
UNIT = "edgejoule-power.socket"
FOLDER = "/run/edgejoule-power"
SOCKET = f"{FOLDER}/socket"
LOCK = "/run/edgejoule-power.lock"
NEEDED = ("/etc/nvpmodel.conf", "/var/lib/nvpmodel")
"""Of the board: which modes there are, and which is on."""

PLACES = {
    f"/etc/systemd/system/{UNIT}": UNIT,
    "/etc/systemd/system/edgejoule-power@.service": "edgejoule-power@.service",
    "/usr/local/lib/edgejoule_power.py": "edgejoule_power.py",
}
"""Where each of our files lies on a board."""


def files() -> dict[str, bytes]:
    """What lies where, of this version."""
    return {path: (HERE / name).read_bytes() for path, name in PLACES.items()}


def hashes() -> dict[str, str]:
    """SHA-256 of each."""
    return {path: hashlib.sha256(data).hexdigest() for path, data in files().items()}


def archive_of(found: Mapping[str, bytes]) -> bytes:
    """Files as `tar -x -C /` takes them."""
    return tar_of({path[1:]: data for path, data in found.items()})


def install_command(listens: bool) -> str:
    """A shell command that reads an archive; it does not ask for a password.

    Args:
        listens: whether the socket is to be there then, and after each start of the board.
    """
    do = [f"enable {UNIT}", f"restart {UNIT}"] if listens else [f"disable --now {UNIT}"]
    commands = ["tar -xf - -C /", "systemctl daemon-reload", *(f"systemctl {words}" for words in do)]
    return " && ".join(f"sudo -n {command}" for command in commands)


def remove_command(sudo: str = "sudo -n") -> str:
    """A shell command that leaves nothing of it, also where it is not whole."""
    left = " ".join([*PLACES, FOLDER, LOCK])
    return (
        f"{sudo} systemctl disable --now {UNIT}; {sudo} rm -rf {left} && {sudo} systemctl daemon-reload "
        f"&& ! systemctl is-active --quiet {UNIT}"
    )
