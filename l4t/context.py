"""What an image is built from, as one archive that is the same to the byte wherever and whenever it is made."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from images import Image

HERE = Path(__file__).resolve().parent
AGENT = HERE.parent / "services" / "agent"
HASH, MADE_FOR = "edgejoule.context", "edgejoule.l4t"
"""Labels of an image: what it was built from, and the oldest L4T that it may run on."""


class Context(NamedTuple):
    """A build context: ``archive`` is for ``docker build -``; ``sha256`` of what is in it, unpacked."""

    archive: bytes
    sha256: str


def context_of(image: Image, base: str, agent: Path = AGENT) -> Context:
    """Dockerfile, requirements and the agent's wheel; the Dockerfile with its base and labels written in."""
    folder = HERE / image.folder
    name, wheel = agent_wheel(agent)
    written = (folder / "Dockerfile").read_text(encoding="utf-8")
    dockerfile = re.sub(r"^ARG BASE_IMAGE=.*$", f"ARG BASE_IMAGE={base}", written, flags=re.MULTILINE)
    files = {"requirements.txt": (folder / "requirements.txt").read_bytes(), name: wheel}
    sha256 = hashlib.sha256(tar_of({**files, "Dockerfile": dockerfile.encode()})).hexdigest()
    dockerfile += f'LABEL {HASH}="{sha256}" {MADE_FOR}="{image.made_for}"\n'
    # gzip ends in a checksum: an archive that broke off is never taken for a whole one
    return Context(gzip.compress(tar_of({**files, "Dockerfile": dockerfile.encode()}), 6, mtime=0), sha256)


def tar_of(files: dict[str, bytes]) -> bytes:
    """An archive of files that are root's and readable by all, the same to the byte for the same files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(data), 0o644
            archive.addfile(entry, io.BytesIO(data))
    return out.getvalue()


def agent_wheel(agent: Path) -> tuple[str, bytes]:
    """File name and content of the agent's wheel (PEP 427).

    Made here, because the setuptools of Python 3.6 cannot read a pyproject.toml, and so that it needs no network.
    """
    project = (agent / "pyproject.toml").read_text(encoding="utf-8")
    version, python = (_value(project, key) for key in ("version", "requires-python"))
    script = _value(project, "edgejoule-agent")
    needed = re.findall(r'"([^"]+)"', re.search(r"^dependencies = \[(.*?)^\]", project, re.M | re.S).group(1))  # type: ignore[union-attr]
    info = f"edgejoule_agent-{version}.dist-info"
    source = agent / "src"
    paths = [path for path in source.rglob("*") if path.is_file() and not _is_made(path)]
    files = {path.relative_to(source).as_posix(): path.read_bytes() for path in paths}
    metadata = ["Metadata-Version: 2.1", "Name: edgejoule-agent", f"Version: {version}", f"Requires-Python: {python}"]
    metadata += [f"Requires-Dist: {line}" for line in needed]
    files[f"{info}/METADATA"] = "\n".join([*metadata, ""]).encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: edgejoule\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    files[f"{info}/entry_points.txt"] = f"[console_scripts]\nedgejoule-agent = {script}\n".encode()
    record = [f"{name},sha256={_hash(data)},{len(data)}\n" for name, data in sorted(files.items())]
    files[f"{info}/RECORD"] = "".join([*record, f"{info}/RECORD,,\n"]).encode()
    return f"edgejoule_agent-{version}-py3-none-any.whl", _zip(files)


def _is_made(path: Path) -> bool:
    return path.suffix == ".pyc" or any(part.endswith(".egg-info") for part in path.parts)


def _value(project: str, key: str) -> str:
    found = re.search(rf'^{key} = "([^"]+)"', project, re.MULTILINE)
    assert found, f"pyproject.toml of the agent has no {key}"
    return found.group(1)


def _hash(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _zip(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:  # stored: zlib's releases compress differently
        for name, data in sorted(files.items()):
            entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data)
    return out.getvalue()
