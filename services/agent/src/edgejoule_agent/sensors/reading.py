"""A sensor, and the small files that the kernel shows one in."""

import glob
import os
import re
from typing import Callable, List, NamedTuple, Optional, Tuple

from edgejoule_agent.errors import SensorError


class Sensor(NamedTuple):
    """Something that can be read: ``quantity`` says of what it tells, ``unit`` in what."""

    name: str
    quantity: str  # power, temperature, load, clock, fan, memory
    unit: str  # W, C, 1 (a share), Hz, rpm, bytes
    read: Callable[[], float]  # raises SensorError with the reason when there is no value


def try_read(sensor: Sensor) -> Tuple[Optional[float], str]:
    """The sensor's value, or None and the reason."""
    try:
        return sensor.read(), ""
    except SensorError as error:
        return None, str(error)


def text(path: str) -> str:
    """A small file's text, without the newline or the NUL at its end.

    Raises:
        SensorError: it cannot be read; the message is the path and why.
    """
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8", "replace").strip("\0 \t\r\n")
    except OSError as error:  # EAGAIN and EINVAL of a sleeping sensor come as such
        raise SensorError(f"{path}: {error.strerror}") from error


def integer(path: str) -> int:
    """A small file's whole number.

    Raises:
        SensorError: it cannot be read, or holds something else.
    """
    found = text(path)
    try:
        return int(found)
    except ValueError:
        raise SensorError(f"{path}: reads {found[:40]!r}, which is no whole number") from None


def text_or(path: str, otherwise: str) -> str:
    """A small file's text, or ``otherwise`` where it cannot be read."""
    try:
        return text(path)
    except SensorError:
        return otherwise


def find(root: str, pattern: str) -> List[str]:
    """The paths under ``root`` that fit, in the order of the numbers in them (hwmon2 before hwmon10)."""
    found = glob.glob(os.path.join(root, pattern))
    return sorted(found, key=lambda path: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path)])
