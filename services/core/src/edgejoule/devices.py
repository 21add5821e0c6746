"""Devices, as the services that know them announce them under the entry-point group ``edgejoule.devices``.

An entry is named as in a spec (``host``) and loads a function that returns what stays the same on that
device while nobody changes it: ``{"id": ..., "hardware": {...}, "environment": {...}}``. ``hardware`` is
the class an engine is bound to, ``environment`` what a measurement is bound to. A board may add ``precisions``:
which of them its GPU computes fast, and how that was learnt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

from edgejoule.errors import UnsupportedError

GROUP = "edgejoule.devices"
HOST = "host"


@dataclass(frozen=True)
class Device:
    """One device, as it was found."""

    name: str
    id: str
    hardware: Mapping[str, Any]
    environment: Mapping[str, Any]
    precisions: Mapping[str, Any] | None = None


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
