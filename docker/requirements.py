"""Write what our packages need of others, so that an image's dependencies are a layer apart from our source.

    python requirements.py SERVICES FOLDER NAME=SERVICE[EXTRA,...] ...

Each NAME becomes FOLDER/NAME.txt, the requirements of services/SERVICE with these extras, without our own packages.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import tomllib


def requirements(pyproject: str, extras: list[str]) -> list[str]:
    """What a package needs of others, from the text of its pyproject.toml."""
    project = tomllib.loads(pyproject)["project"]
    optional = project.get("optional-dependencies", {})
    needed = [*project.get("dependencies", []), *(line for extra in extras for line in optional[extra])]
    return [line for line in needed if not line.startswith("edgejoule")]


def main() -> None:
    services, folder, *wanted = sys.argv[1:]
    for item in wanted:
        name, service, extras = re.fullmatch(r"(\w+)=(\w+)(?:\[([\w,]+)\])?", item).groups()
        text = (Path(services) / service / "pyproject.toml").read_text(encoding="utf-8")
        lines = requirements(text, extras.split(",") if extras else [])
        (Path(folder) / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
