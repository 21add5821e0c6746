"""Write what is missing in .env, with random secrets, and .env.operator from it. Called by `make up`.

.env.operator holds what the command line needs to reach the stack from this host, and no other secret.
"""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path


def values(text: str) -> dict[str, str]:
    """The variables of an environment file."""
    lines = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    return {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}


def completed(example: str, present: str) -> str:
    """An environment file with every variable of the example; what is there already stays."""
    known = values(present)
    if not known:
        filled = [f"{line}{secrets.token_hex(20)}" if line.endswith("=") else line for line in example.splitlines()]
        return "\n".join(filled) + "\n"
    added = [
        f"{name}={value or secrets.token_hex(20)}" for name, value in values(example).items() if not known.get(name)
    ]
    kept = [line for line in present.splitlines() if not line.endswith("=")]
    return "\n".join([*kept, *added]) + "\n"


def operator(settings: dict[str, str]) -> str:
    """What the command line needs, as an environment file."""
    secret = settings["OPERATOR_SECRET"]
    return (
        "EDGEJOULE_STORE=s3://edgejoule\n"
        f"EDGEJOULE_S3_ENDPOINT=http://127.0.0.1:{settings['S3_PORT']}\n"
        "EDGEJOULE_S3_ACCESS_KEY=edgejouleoperator\n"
        f"EDGEJOULE_S3_SECRET_KEY={secret}\n"
        f"EDGEJOULE_BROKER=redis://operator:{secret}@127.0.0.1:{settings['REDIS_PORT']}/0\n"
    )


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read; whole or not at all."""
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
    os.replace(new, path)


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    example = (Path(__file__).parents[1] / ".env.example").read_text(encoding="utf-8")
    environment = folder / ".env"
    present = environment.read_text(encoding="utf-8") if environment.exists() else ""
    text = completed(example, present)
    if text != present:
        write_private(environment, text)
        sys.stderr.write(f"{environment} {'completed' if present else 'written, with random secrets'}\n")
    write_private(folder / ".env.operator", operator(values(text)))


if __name__ == "__main__":
    main()
