"""Arrays in an ``.npz`` file whose bytes depend on nothing but the arrays.

Members are stored, not deflated: deflate's output differs between zlib versions, and equal results must
have equal hashes on every machine.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edgejoule.errors import DataError

Array = npt.NDArray[Any]

_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest date a zip can hold


def write_npz(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write ``arrays`` so that ``numpy.load`` reads them; equal arrays give equal bytes."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy", _EPOCH)
            with archive.open(member, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)


def read_npz(path: Path, dtypes: Mapping[str, npt.DTypeLike], what: str) -> dict[str, Array]:
    """Read exactly the arrays named in ``dtypes``; ``what`` names the file's kind in errors.

    Raises:
        DataError: not an npz, an array is missing, or one has another type than the format says.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise ValueError("it holds one array, not an archive of arrays")
            if missing := sorted(set(dtypes) - set(file.files)):
                raise ValueError(f"it lacks the array {missing[0]!r}")
            arrays = {name: file[name] for name in dtypes}
    except (ValueError, OSError, EOFError, RuntimeError, zipfile.BadZipFile) as error:  # zipfile raises them all
        raise DataError(f"{path.name} is not a {what} file: {error}. Run the step that made it again.") from error
    for name, dtype in dtypes.items():
        if arrays[name].dtype != np.dtype(dtype):
            raise DataError(
                f"{path.name}: array {name!r} is {arrays[name].dtype}, but in a {what} file it is {np.dtype(dtype)}. "
                "Run the step that made it again."
            )
    return arrays
