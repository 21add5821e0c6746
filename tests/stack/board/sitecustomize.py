"""In an agent's container on a host that plays its board: the device tree is the board's. Python 3.6-safe."""

import builtins

_open = builtins.open


def _open_of_board(file, *arguments, **settings):
    if isinstance(file, str) and file.startswith("/proc/device-tree/"):
        file = "/played" + file[len("/proc") :]
    return _open(file, *arguments, **settings)


builtins.open = _open_of_board
