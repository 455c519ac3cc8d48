"""Writes the training log: always to metrics.jsonl, to TensorBoard and Weights & Biases if the recipe names them.

    RUN/metrics.jsonl    one JSON object a line
    RUN/tensorboard/     `tensorboard --logdir RUN/tensorboard`
    RUN/wandb/           the run's id, and W&B's local files

A resumed training writes to the same places. Lines after the checkpoint that it resumes from are removed
(metrics.jsonl, TensorBoard) or not sent again (W&B, which can't remove them).
"""

from __future__ import annotations

import importlib.util
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import yaml

from mm1.errors import UserError
from mm1.files import write_json, write_text

Line = dict[str, Any]
Write = Callable[[Line], None]


def check_trackers(names: Sequence[str]) -> None:
    """Check that the trackers are installed.

    Raises:
        UserError: If one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"train.trackers: the package {name} is not installed: run pip install 'mm1[track]', or remove {name}"
            )


@contextmanager
def open_log(directory: Path, trackers: Sequence[str], step: int) -> Iterator[Write]:
    """Open the training log.

    Args:
        directory: The run's directory.
        trackers: Names of trackers: `tensorboard`, `wandb`.
        step: The step that training resumes from; lines after it are removed.

    Yields:
        A function that writes a line, which has `step`.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(_json_lines(directory / "metrics.jsonl", step))]
        if "tensorboard" in trackers:
            writers.append(stack.enter_context(_tensorboard(directory / "tensorboard", step)))
        if "wandb" in trackers:
            writers.append(stack.enter_context(_wandb(directory)))

        def write(line: Line) -> None:
            for writer in writers:
                writer(line)

        yield write


@contextmanager
def _json_lines(log: Path, step: int) -> Iterator[Write]:
    _drop_lines_after(log, step)
    with log.open("a") as file:

        def write(line: Line) -> None:
            file.write(json.dumps(line) + "\n")
            file.flush()

        yield write


def _drop_lines_after(log: Path, step: int) -> None:
    """Remove the lines after a step, and an incomplete last line."""
    if not log.is_file():
        return
    kept = []
    for line in log.read_text().splitlines(keepends=True):
        try:
            if line.endswith("\n") and json.loads(line)["step"] <= step:
                kept.append(line)
        except (json.JSONDecodeError, KeyError):
            continue
    write_text(log, "".join(kept))


@contextmanager
def _tensorboard(folder: Path, step: int) -> Iterator[Write]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder), purge_step=step + 1) as writer:

        def write(line: Line) -> None:
            for key, value in _figures(line).items():
                writer.add_scalar(key, value, line["step"])

        yield write


@contextmanager
def _wandb(directory: Path) -> Iterator[Write]:
    import wandb

    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    folder = directory / "wandb"
    folder.mkdir(exist_ok=True)
    file = folder / "mm1.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"id": uuid.uuid4().hex[:8], "step": 0}
    write_json(file, known)
    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mm1"),
            name=recipe["name"],
            id=known["id"],
            resume="allow",
            dir=str(directory),
            config=recipe,
            settings=wandb.Settings(console="off"),
        )
    except wandb.Error as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"train.trackers: W&B doesn't start ({reason}): run `wandb login`, or set WANDB_MODE=offline"
        ) from None
    with run:

        def write(line: Line) -> None:
            if line["step"] > known["step"]:
                run.log(_figures(line), step=line["step"])
                known["step"] = line["step"]
                write_json(file, known)

        yield write


def _figures(line: Line) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if key != "step"}
