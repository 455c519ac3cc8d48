"""What a pre-trained encoder gains: the demo's model from `clip-demo` against one whose tower is fresh, over seeds.

    python benchmarks/encoder_gain.py OUT            # about 25 minutes on two idle cores
    python benchmarks/encoder_gain.py OUT --tiny     # two minutes: proves that it runs

For each seed: an encoder is trained, then the multimodal model from it for `--steps` steps. Against it stand a fresh
tower with the same number of steps (the encoder comes free, as when it is used again) and a fresh tower with as many
more steps as the encoder's training would have paid for (equal time in all). Needs the demo's corpora (`mm1 data build
scenes easy-vqa openmoji pages text`). Runs that are there already aren't made again: an interrupted comparison goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path

from mm1.encoder.pretrain import pretrain_encoder
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.settings import EvaluationSettings
from mm1.recipe import EncoderRecipe, load_recipe
from mm1.train.pretrain import pretrain

TASKS = ["easy-vqa", "scenes-caption"]


def seconds_of(run: Path) -> float:
    """Return how long a run's steps took, from its last line of metrics."""
    seconds: float = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["time"]
    return seconds


def scores_of(run: Path, settings: Sequence[str], limit: int) -> dict[str, float]:
    """Train the demo's model with some settings; return its 0-shot score on each task."""
    pretrain(load_recipe("demo", settings), run)
    results = evaluate_run(run, settings=EvaluationSettings(tasks=TASKS, shots=[0], limit=limit))
    return {result["task"]: result["score"] for result in results}


def main() -> None:
    """Train, score, and print a line for each seed and the means."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--limit", type=int, default=1000, help="items of a task")
    parser.add_argument("--tiny", action="store_true")
    arguments = parser.parse_args()
    seeds, steps, limit = (1, 60, 50) if arguments.tiny else (arguments.seeds, arguments.steps, arguments.limit)
    short = ["train.steps=10", "train.warmup_steps=2"] if arguments.tiny else []
    table: dict[str, list[dict[str, float]]] = {}
    for seed in range(seeds):
        encoder, with_encoder = arguments.out / f"encoder-{seed}", arguments.out / f"from-encoder-{seed}"
        pretrain_encoder(load_recipe("clip-demo", [f"seed={seed}", *short], schema=EncoderRecipe), encoder)
        common = [f"seed={seed}"]
        scores = {
            "from the encoder": scores_of(
                with_encoder, [*common, f"train.steps={steps}", f"model.vision.from={encoder}"], limit
            )
        }
        more = round(steps * (1 + seconds_of(encoder) / seconds_of(with_encoder)))
        for name, count in (("fresh, as many steps", steps), ("fresh, equal time in all", more)):
            run = arguments.out / f"fresh-{count}-{seed}"
            scores[name] = scores_of(run, [*common, f"train.steps={count}"], limit)
        print(f"seed {seed}: encoder {seconds_of(encoder):.0f} s, model {seconds_of(with_encoder):.0f} s, {more} steps")
        for name, by_task in scores.items():
            table.setdefault(name, []).append(by_task)
    for name, rows in table.items():
        for task in TASKS:
            values = [row[task] for row in rows]
            spread = f" (standard deviation {statistics.stdev(values):.3f})" if len(values) > 1 else ""
            print(f"{name:26} {task:15} {statistics.mean(values):.3f}{spread}   {' '.join(f'{v:.3f}' for v in values)}")


if __name__ == "__main__":
    main()
