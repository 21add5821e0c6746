"""How a board is named to ssh."""

from __future__ import annotations

import pytest

from board import Board, Unreachable


@pytest.mark.parametrize(
    ("host", "told"),
    [
        ("jetson@nano.local", "jetson@nano.local"),
        ("nano", "nano"),
        ("jetson@192.0.2.7", "jetson@192.0.2.7"),
        ("jetson@[2001:db8::1]", "jetson@2001:db8::1"),
        ("jetson@2001:db8::1", "jetson@2001:db8::1"),
        ("fe80::1%usb0", "fe80::1%usb0"),
        ("[fe80::1%usb0]", "fe80::1%usb0"),
    ],
)
def test_host_is_told_as_ssh_knows_it(host: str, told: str) -> None:
    assert Board(host).host == told


@pytest.mark.parametrize("host", ["", "-oProxyCommand=x", "a b", "jetson@", "[nano]", "nano;reboot", "[2001:db8::1"])
def test_what_is_no_host_is_refused_in_one_sentence(host: str) -> None:
    with pytest.raises(Unreachable, match="is no user@board"):
        Board(host)
