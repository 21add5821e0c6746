"""What boards send, on the gateway's disk, until it is complete and checked.

    inbox/<job>/job.json       the step and its board, written when the job is given out
    inbox/<job>/result.json    what the board says it made
    inbox/<job>/files/<name>   as much of it as has arrived

It outlives the gateway: a result may come hours later, in pieces.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pydantic import ValidationError

from edgejoule.boards import DeviceName, DeviceResult
from edgejoule.errors import StoreError
from edgejoule.records import Record
from edgejoule.stack.messages import StepMessage
from edgejoule.store import Blob
from edgejoule_gateway.refusal import Refusal, unknown_job

LOG = "log"
"""The name of a step's log among its files."""


class Given(Record):
    """A step that was given to a board."""

    device: DeviceName
    message: StepMessage


class Entry:
    """One job's part of the inbox."""

    def __init__(self, folder: Path, given: Given) -> None:
        self.folder = folder
        self.job = folder.name
        self.device = given.device
        self.message = given.message
        self._files = folder / "files"

    def expect(self, result: DeviceResult) -> None:
        """Keep what the board says it made; what arrived under another announcement is thrown away."""
        file = self.folder / "result.json"
        data = result.model_dump_json().encode()
        with suppress(FileNotFoundError):
            if file.read_bytes() == data:
                return
        shutil.rmtree(self._files, ignore_errors=True)
        self._files.mkdir()
        _write(file, data)

    def announced(self, name: str) -> Blob:
        """What a file was said to be.

        Raises:
            Refusal: no file of that name was announced.
        """
        try:
            result = DeviceResult.model_validate_json((self.folder / "result.json").read_bytes())
        except FileNotFoundError:
            raise Refusal(409, "announce the result first") from None
        blobs = files_of(result)
        if name not in blobs:
            raise Refusal(404, "no such file was announced")
        return blobs[name]

    def missing(self, result: DeviceResult) -> dict[str, int]:
        """File to bytes that arrived, of those that are not complete."""
        sizes = {name: self.size_bytes(name) for name in files_of(result)}
        return {name: sizes[name] for name, blob in files_of(result).items() if sizes[name] < blob.size_bytes}

    def size_bytes(self, name: str) -> int:
        try:
            return self.path(name).stat().st_size
        except FileNotFoundError:
            return 0

    def path(self, name: str) -> Path:
        return self._files / name

    def open_at(self, name: str, offset: int) -> int:
        """A descriptor to write to from there on.

        Raises:
            Refusal: bytes before it are missing, or it lies past the end.
        """
        size_bytes = self.size_bytes(name)
        if not 0 <= offset <= size_bytes:
            raise Refusal(409, f"{size_bytes} bytes are there, so go on at {size_bytes}")
        descriptor = os.open(self.path(name), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        os.lseek(descriptor, offset, os.SEEK_SET)
        return descriptor

    def drop(self, name: str) -> None:
        """Throw a file away."""
        self.path(name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Throw everything of the job away."""
        shutil.rmtree(self.folder, ignore_errors=True)


def files_of(result: DeviceResult) -> dict[str, Blob]:
    """File to what it was said to be; empty files need not be sent."""
    return {**result.outputs, **({LOG: result.log} if result.log else {})}


class Inbox:
    """The inbox, in a folder of the store's workspace."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, device: str, message: StepMessage) -> Entry:
        """Keep that a step is given to a board.

        Raises:
            StoreError: the disk takes it not.
        """
        given = Given(device=device, message=message)
        folder = self._folder / message.claim
        try:
            (folder / "files").mkdir(parents=True, exist_ok=True)
            _write(folder / "job.json", given.model_dump_json().encode())
        except OSError as error:
            raise StoreError(f"the inbox {self._folder} cannot be written to ({error.strerror}): make room") from error
        return Entry(folder, given)

    def find(self, job: str, device: str) -> Entry:
        """A job of this board.

        Raises:
            Refusal: it has no such job.
        """
        entry = self._read(self._folder / job) if re.fullmatch("[0-9a-f]{32}", job) else None
        if entry is None or entry.device != device:
            raise unknown_job()
        return entry

    def of(self, device: str) -> Iterator[Entry]:
        """Every job of a board."""
        for folder in self._folder.iterdir():
            entry = self._read(folder)
            if entry is not None and entry.device == device:
                yield entry

    def free_bytes(self) -> int:
        """What the disk has left."""
        return shutil.disk_usage(self._folder).free

    def sweep(self, older_than_s: float) -> None:
        """Throw away what nothing was done to for so long."""
        for folder in self._folder.iterdir():
            with suppress(FileNotFoundError):
                newest = max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
                if newest < time.time() - older_than_s:
                    shutil.rmtree(folder, ignore_errors=True)

    def _read(self, folder: Path) -> Entry | None:
        try:
            return Entry(folder, Given.model_validate_json((folder / "job.json").read_bytes()))
        except (FileNotFoundError, NotADirectoryError, ValidationError):
            return None


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    new = file.with_suffix(".new")
    with open(new, "wb") as output:
        output.write(data)
        output.flush()
        os.fsync(output.fileno())
    os.replace(new, file)
