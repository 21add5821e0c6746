"""Our detectors beside their authors' implementations, both with the same random weights.

    python tests/faithfulness/run.py [NAME ...]      # all of them when none is named; make faithfulness

A module beside this one names a reference's packages (REQUIREMENTS) and has ``compare(name, seed)`` for each detector
in DETECTORS. The packages go to ``.references/``, away from the project's own environment and requirements: they are
there to compare with, and some have licences that the project must not depend on. A state dict of the reference, with
batch norm's statistics randomized too, is saved and imported as a user would; outputs before NMS must agree.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".references"
MODULES = ("torchvision_ssdlite", "ultralytics_yolov5", "rwightman_effdet")
SEEDS = (0, 1, 2)
TOLERANCE = 1e-4


class Comparison(NamedTuple):
    """How far ours is from the reference on one input.

    boxes: largest difference of a coordinate, as a fraction of the input. scores: largest difference of a score.
    tensors: of the reference's state dict, all accounted for.
    """

    tensors: int
    boxes: float
    scores: float

    @property
    def agrees(self) -> bool:
        return self.boxes <= TOLERANCE and self.scores <= TOLERANCE


def fetch(module: str, requirements: tuple[str, ...]) -> Path:
    """Install a reference's packages, without their dependencies, into a folder of its own; once."""
    folder = FOLDER / module
    done = folder / ".requirements"
    wanted = "\n".join(requirements)
    if not done.exists() or done.read_text() != wanted:
        print(f"{module}: installing {', '.join(requirements)} into {folder} ...", flush=True)
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--upgrade", "--target", str(folder)]
        subprocess.run([*command, *requirements], check=True)
        done.write_text(wanted)
    return folder


def compare_all(module_name: str) -> bool:
    """In a process of its own: print a row for each detector and seed; whether all agree."""
    module = importlib.import_module(module_name)
    agree = True
    for detector in module.DETECTORS:
        for seed in SEEDS:
            found = module.compare(detector, seed)
            agree &= found.agrees
            print(
                f"{detector:22} seed {seed}  {found.tensors:4} tensors  boxes {found.boxes:.1e}  "
                f"scores {found.scores:.1e}  {'agrees' if found.agrees else 'DIFFERS'}",
                flush=True,
            )
    return agree


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(MODULES)}")
    parser.add_argument("--packages", help=argparse.SUPPRESS)  # says that this is the child, and where they are
    options = parser.parse_args()
    if strangers := set(options.names) - set(MODULES):
        parser.error(f"unknown: {', '.join(sorted(strangers))}; there are {', '.join(MODULES)}")
    if options.packages:
        sys.path.append(options.packages)  # behind our own, so that a reference never replaces one of them
        sys.exit(not compare_all(options.names[0]))
    agree = True
    for name in options.names or MODULES:
        folder = fetch(name, importlib.import_module(name).REQUIREMENTS)
        agree &= not subprocess.run([sys.executable, __file__, "--packages", str(folder), name]).returncode
    print("All agree." if agree else "Not all agree.")
    sys.exit(not agree)


if __name__ == "__main__":
    main()
