"""Arrays in an ``.npz`` file whose bytes depend on nothing but the arrays.

Members are stored, not deflated: deflate's output differs between zlib versions, and equal results must
have equal hashes on every machine.
"""

import zipfile
from typing import Any, Mapping

import numpy as np

EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold


def write_npz(path: Any, arrays: Mapping[str, Any]) -> None:
    """Write ``arrays`` so that ``numpy.load`` reads them; equal arrays give equal bytes."""
    with zipfile.ZipFile(str(path), "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", EPOCH)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
