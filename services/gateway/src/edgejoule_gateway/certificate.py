"""A certificate of one's own for the gateway, which boards are then told to trust."""

from __future__ import annotations

import ipaddress
import logging
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path

from edgejoule.errors import EdgejouleError

DAYS = 3650

_log = logging.getLogger(__name__)


def make_certificate(names: Sequence[str], certificate: Path, key: Path) -> None:
    """Write a self-signed certificate for these host names and addresses, and its key, which only its owner may read.

    Raises:
        EdgejouleError: a name is none, a file is there already, or there is no openssl.
    """
    for file in (certificate, key):
        if file.exists():
            raise EdgejouleError(f"{file} is there already: remove it first, and give boards the new certificate")
    _make(names, certificate, key)


def _make(names: Sequence[str], certificate: Path, key: Path) -> None:
    """Write the certificate, and its key where there is none; whoever is killed meanwhile leaves no half of either."""
    alternatives = ",".join(f"{'IP' if _is_address(name) else 'DNS'}:{_checked(name)}" for name in names)
    new_certificate, new_key = (file.with_name(f"{file.name}.new") for file in (certificate, key))
    fresh = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(new_key))
    command = [
        *("openssl", "req", "-x509", *(("-key", str(key)) if key.exists() else fresh)),
        *("-days", str(DAYS), "-subj", "/CN=edgejoule gateway", "-addext", f"subjectAltName={alternatives}"),
        *("-addext", "extendedKeyUsage=serverAuth", "-out", str(new_certificate)),
    ]
    try:
        for file in (certificate, key):
            file.parent.mkdir(parents=True, exist_ok=True)
        new_key.unlink(missing_ok=True)
        os.close(os.open(new_key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    except OSError as error:
        raise EdgejouleError(f"{error.filename} cannot be written ({error.strerror}): name another place") from error
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
        if not key.exists():
            os.replace(new_key, key)
        os.replace(new_certificate, certificate)
    except (OSError, subprocess.CalledProcessError) as error:
        said = error.stderr.strip().splitlines()[-1:] if isinstance(error, subprocess.CalledProcessError) else [error]
        raise EdgejouleError(f"openssl made no certificate ({said[0]}): install it, or bring a certificate") from error
    finally:
        new_key.unlink(missing_ok=True)


def have_certificate(names: Sequence[str], certificate: Path, key: Path) -> None:
    """Make a certificate where there is none, and its key unless that is there; say which names the present one lacks.

    Raises:
        EdgejouleError: see make_certificate.
    """
    if not certificate.exists():
        _make(names, certificate, key)
        _log.info("made the certificate %s for %s", certificate, ", ".join(names))
    elif missing := [name for name in names if not _is_for(name, certificate)]:
        _log.warning(
            "the certificate %s is not for %s, and boards that call the gateway so will not trust it: remove it "
            "and %s, start again, and give every board the new one",
            certificate,
            ", ".join(missing),
            key,
        )


def _is_for(name: str, certificate: Path) -> bool:
    asked = "-checkip" if _is_address(name) else "-checkhost"
    command = ["openssl", "x509", "-noout", "-in", str(certificate), asked, _checked(name)]
    try:
        said = subprocess.run(command, capture_output=True, text=True).stdout
    except FileNotFoundError:
        return True  # nobody can tell
    return "NOT match" not in said


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _checked(name: str) -> str:
    if not _is_address(name) and not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", name):
        raise EdgejouleError(f"{name!r} is no name or address of a host: give those by which boards reach the gateway")
    return name
