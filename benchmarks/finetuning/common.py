"""What the methods of the fine-tuning benchmark share: their arguments, their clock, and the files that they write.

A method is a script. It trains on --images (train/ and val/ with class folders), and after `trained` writes a predicted
class for every image of --held-out into predictions.csv, both in its working folder.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

BATCH = 32


@dataclass
class Job:
    images: Path
    held_out: Path
    weights: Path
    network: str
    size: int
    minutes: float
    began: float
    """time.time() when the process was started: imports count too."""
    seed: int
    threads: int

    @property
    def left_s(self) -> float:
        return self.began + 60 * self.minutes - time.time()

    @property
    def workers(self) -> int:
        """Processes that decode images: none on one core, else as in `inceptionnet train`."""
        return 0 if self.threads == 1 else min(4, self.threads // 2)

    @property
    def classes(self) -> list[str]:
        return sorted(path.name for path in (self.images / "train").iterdir())

    def files(self, folder: Path) -> list[Path]:
        """The images of a folder with class folders, in a fixed order."""
        return sorted(folder.glob("*/*"))

    @property
    def batch(self) -> int:
        """The batch size of every method; all training images where they are fewer."""
        return min(BATCH, len(self.files(self.images / "train")))


def arguments() -> Job:
    parser = argparse.ArgumentParser()
    for name in ("images", "held-out", "weights"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--network", required=True)
    for name in ("minutes", "began"):
        parser.add_argument(f"--{name}", type=float, required=True)
    for name in ("size", "seed", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    return Job(**vars(parser.parse_args()))


def trained(job: Job, note: str) -> None:
    """Stop the clock: what follows predicts the held-out images."""
    took = time.time() - job.began
    Path("trained.json").write_text(json.dumps({"training_s": round(took, 1), "note": note}), encoding="utf-8")
    print(f"trained in {took:.0f} s: {note}", flush=True)


def write_predictions(files: Sequence[Path], predicted: Sequence[str]) -> None:
    with open("predictions.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image", "predicted"))
        writer.writerows((f"{path.parent.name}/{path.name}", name) for path, name in zip(files, predicted, strict=True))


def command(*words: str | os.PathLike[str]) -> None:
    """Run a command of this package."""
    print("inceptionnet", *words, flush=True)
    done = subprocess.run([sys.executable, "-m", "inceptionnet", *words], stdout=sys.stdout, stderr=sys.stderr)
    if done.returncode:
        sys.exit(done.returncode)


def epochs_of(left_s: float, epoch_s: float) -> int:
    """The number of epochs that fit, at least one."""
    return max(1, int(left_s / epoch_s))
