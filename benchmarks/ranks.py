"""Do two ranks compute what one does, in float32 and in bfloat16?

    python benchmarks/ranks.py          # 30 steps each of a tiny model and of one of the demo's size; minutes

The same run by `mm1 pretrain` on one rank, on one rank with half the micro-batch, and under torchrun on two ranks, in
both precisions. Printed are the largest and the mean relative difference of a step's loss from that on one rank in the
same precision, and of that on one rank in float32. Half the micro-batch shows what rounding in another order does.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

from train import write_recipe

TINY = {
    "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
    "connector": {"kind": "average_pool", "num_tokens": 4},
    "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2},
}
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
WAYS: dict[str, tuple[list[str], list[str]]] = {
    "one rank": ([], []),
    "one rank, half the micro-batch": ([], ["train.micro_batch_size=4"]),
    "two ranks": (TORCHRUN, ["train.micro_batch_size=4"]),
}
"""Launcher and settings; a step has eight sequences in any case."""


def losses(recipe: Path, run: Path, launcher: list[str], *settings: str) -> list[float]:
    """Train a recipe in a new process and return the loss of every step."""
    changes = [part for setting in settings for part in ("--set", setting)]
    subprocess.run(
        [sys.executable, *launcher, "-m", "mm1", "pretrain", str(recipe), "--to", str(run), *changes],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        check=True,
    )
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def difference(some: list[float], others: list[float]) -> dict[str, float]:
    """Return the largest and the mean relative difference."""
    each = [abs(a - b) / b for a, b in zip(some, others, strict=True)]
    return {"largest": max(each), "mean": sum(each) / len(each)}


def measured(recipe: Path, folder: Path) -> dict[str, Any]:
    """Train in every way and precision, and compare."""
    found = {
        (dtype, way): losses(recipe, folder / f"{dtype}-{number}", launcher, f"train.dtype={dtype}", *settings)
        for dtype in ("float32", "bfloat16")
        for number, (way, (launcher, settings)) in enumerate(WAYS.items())
    }
    table: dict[str, Any] = {}
    for (dtype, way), values in found.items():
        if way != "one rank":
            table[f"{dtype}, {way}"] = difference(values, found[dtype, "one rank"])
    for way in ("one rank", "two ranks"):
        table[f"bfloat16, {way}, against float32 on one rank"] = difference(
            found["bfloat16", way], found["float32", "one rank"]
        )
    table["loss at the end"] = {f"{dtype}, {way}": values[-1] for (dtype, way), values in found.items()}
    return table


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    result = {}
    for size in ("tiny", "demo"):
        with tempfile.TemporaryDirectory(prefix="mm1-ranks-") as place:
            folder = Path(place)
            settings = argparse.Namespace(model="demo", tiny=False, cache=folder / "cache", workers=0)
            recipe = write_recipe(folder, settings, "float32")
            content = yaml.safe_load(recipe.read_text())
            content["train"] |= {"steps": options.steps, "log_every": 1, "warmup_steps": 5, "learning_rate": None}
            if size == "tiny":
                content["model"] = TINY
            recipe.write_text(yaml.safe_dump(content))
            result[size] = measured(recipe, folder)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
