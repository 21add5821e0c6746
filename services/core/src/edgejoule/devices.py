"""Devices, as the services that know them announce them under the entry-point group ``edgejoule.devices``.

An entry is named as in a spec (``host``) and loads a function that returns what stays the same on that
device while nobody changes it: ``{"id": ..., "hardware": {...}, "environment": {...}}``. ``hardware`` is
the class an engine is bound to, ``environment`` what a measurement is bound to. A board may add ``precisions``:
which of them its GPU computes fast, and how that was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import entry_points
from typing import Any

from edgejoule.errors import UnsupportedError

GROUP = "edgejoule.devices"
HOST = "host"
IN_MODE = "@"
"""Stands between a device and the power mode it is measured in, as in ``nano@5W``."""

FOLLOWS_POWER_MODE = (
    *("power_mode_id", "clocks_locked", "cpus_online", "cpus", "cpu_khz", "gpu_hz"),
    *("min_frequency_khz", "max_frequency_khz", "absent"),
)
"""Facts of an environment that change with the power mode, beside ``power_mode`` itself."""


@dataclass(frozen=True)
class Device:
    """One device, as it was found."""

    name: str
    id: str
    hardware: Mapping[str, Any]
    environment: Mapping[str, Any]
    precisions: Mapping[str, Any] | None = None

    def in_mode(self, power_mode: str) -> Device:
        """The device as it is measured in a power mode that is put on for it.

        Raises:
            UnsupportedError: it has no power modes.
        """
        if self.environment.get("power_mode") is None:
            raise UnsupportedError(f"{self.name} has no power modes, only a Jetson has; leave power_mode out")
        if self.environment.get("simulated"):
            raise UnsupportedError(f"{self.name} is simulated and stays in one power mode; leave power_mode out")
        kept = {name: value for name, value in self.environment.items() if name not in FOLLOWS_POWER_MODE}
        return replace(self, environment={**kept, "power_mode": power_mode})


def known() -> list[str]:
    """Devices that are here: this host, and what the installed packages announce beside it."""
    return sorted({HOST, *entry_points(group=GROUP).names})


def probe(name: str) -> Device:
    """Ask the device called ``name`` what it is.

    Raises:
        UnsupportedError: nothing that is installed knows it.
    """
    for entry in entry_points(group=GROUP, name=name):
        found = entry.load()()
        return Device(name, found["id"], found["hardware"], found["environment"], found.get("precisions"))
    raise UnsupportedError(f"nothing that is installed can probe device {name!r}; pip install edgejoule-agent")
