"""Make `curve.json`: the losses of a short training at the demo's sizes.

    python -m tests.train.golden.make_curve

The curve stands for "results": where a change moves it, runs made before are not runs made after. The script
therefore refuses to write another curve under the same `RESULTS_VERSION`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from mm1.data.corpus import write_corpus
from mm1.study.version import RESULTS_VERSION
from tests.conftest import KINDS, tiny_documents

FILE = Path(__file__).with_name("curve.json")
TOLERANCE = 1e-4
"""Nats. Processors with AVX2, AVX-512 and neither differ by less; what changes results differs by more."""

RECIPE = {
    "base": "demo",
    "name": "golden",
    "data": {
        "mixture": {
            "caption": {"sources": [{"corpus": "captions/train"}]},
            "interleaved": {"sources": [{"corpus": "pages/train"}]},
            "text": {"sources": [{"corpus": "prose/train"}]},
        }
    },
    "train": {"steps": 60, "warmup_steps": 10, "log_every": 1, "dtype": "float32", "device": "cpu"},
}


def golden_curve(folder: Path) -> list[float]:
    """Train in an empty folder and return the loss of every step, in nats.

    It is a process of its own with one thread: sums are then made in one order.
    """
    for name, kind in KINDS.items():
        write_corpus(folder / "data" / name, {"train": tiny_documents(kind, 200)}, licence="none", sources=["made up"])
    (folder / "golden.yaml").write_text(yaml.safe_dump(RECIPE))
    subprocess.run(
        [sys.executable, "-m", "mm1", "pretrain", "golden.yaml"],
        cwd=folder,
        env={**os.environ, "MM1_DATA": str(folder / "data"), "OMP_NUM_THREADS": "1"},
        check=True,
    )
    lines = (folder / "runs" / "golden" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def differs(curve: list[float], other: list[float]) -> bool:
    """Whether two curves are of different trainings."""
    return len(curve) != len(other) or max(abs(a - b) for a, b in zip(curve, other, strict=True)) > TOLERANCE


def main() -> None:
    """Write the file, unless that hides a change of results."""
    with tempfile.TemporaryDirectory() as folder:
        curve = golden_curve(Path(folder))
    if FILE.is_file():
        before = json.loads(FILE.read_text())
        if differs(curve, before["losses"]) and before["results_version"] == RESULTS_VERSION:
            sys.exit("the losses have changed: raise RESULTS_VERSION in mm1/study/version.py and say why there")
    FILE.write_text(json.dumps({"results_version": RESULTS_VERSION, "losses": curve}) + "\n")


if __name__ == "__main__":
    main()
