"""Writes the training log: always to metrics.jsonl; to TensorBoard, Weights & Biases, trackio if the recipe names them.

    RUN/metrics.jsonl    one JSON object a line
    RUN/tensorboard/     `tensorboard --logdir RUN/tensorboard`
    RUN/wandb/           the run's id, and W&B's local files
    RUN/trackio/         the run's id; `trackio show` finds the run

Trackers also get samples of what the model answers where a training is scored: pictures and texts.

A resumed training writes to the same places. Lines after the checkpoint that it resumes from are removed
(metrics.jsonl, TensorBoard) or not sent again (W&B and trackio, which can't remove them).
"""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import yaml
from PIL import Image as PILImage

from mm1.errors import UserError
from mm1.files import write_json, write_text

Line = dict[str, Any]
Samples = Mapping[str, Sequence[Mapping[str, Any]]]
"""By the name of a score, a few answers as a result's `predictions` have them: `prompt`, `prediction` or `error`,
`answers`, and `image`, a PNG in base64, if there is a picture."""
NO_SAMPLES: Samples = {}
_RENAMED = {("trackio", "time"): "seconds"}  # trackio has a time of its own
_COLUMNS = ["prompt", "answer", "right answers"]
_TO_INSTALL = {"tensorboard": "'mm1[track]'", "wandb": "'mm1[track]'", "trackio": "trackio"}


class Write(Protocol):
    """Writes a line of the log, and samples to trackers."""

    def __call__(self, line: Line, samples: Samples = NO_SAMPLES) -> None:
        """Write a line, which has `step`."""


def check_trackers(names: Sequence[str]) -> None:
    """Check that the trackers are installed.

    Raises:
        UserError: If one is not.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"train.trackers: the package {name} is not installed: run pip install {_TO_INSTALL[name]}, or "
                f"remove {name}"
            )


@contextmanager
def open_log(directory: Path, trackers: Sequence[str], step: int) -> Iterator[Write]:
    """Open the training log.

    Args:
        directory: The run's directory.
        trackers: Names of trackers: `tensorboard`, `wandb`, `trackio`.
        step: The step that training resumes from; lines after it are removed.

    Yields:
        A function that writes a line, which has `step`.
    """
    with ExitStack() as stack:
        writers = [stack.enter_context(_json_lines(directory / "metrics.jsonl", step))]
        if "tensorboard" in trackers:
            writers.append(stack.enter_context(_tensorboard(directory / "tensorboard", step)))
        if "wandb" in trackers:
            writers.append(stack.enter_context(_online(directory, "wandb", _start_wandb, _show_in_wandb)))
        if "trackio" in trackers:
            writers.append(stack.enter_context(_online(directory, "trackio", _start_trackio, _show_in_trackio)))

        def write(line: Line, samples: Samples = NO_SAMPLES) -> None:
            for writer in writers:
                writer(line, samples)

        yield write


@contextmanager
def _json_lines(log: Path, step: int) -> Iterator[Write]:
    _drop_lines_after(log, step)
    with log.open("a") as file:

        def write(line: Line, samples: Samples = NO_SAMPLES) -> None:
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

        def write(line: Line, samples: Samples = NO_SAMPLES) -> None:
            step = line["step"]
            for key, value in _figures(line).items():
                writer.add_scalar(key, value, step)
            for name, entries in samples.items():
                writer.add_text(f"samples/{name}", _as_markdown(entries), step)
                for number, entry in enumerate(entries):
                    if picture := _picture(entry):
                        writer.add_image(f"samples/{name}/{number}", np.asarray(picture), step, dataformats="HWC")

        yield write


@contextmanager
def _online(
    directory: Path,
    package: str,
    start: Callable[[Path, str, dict[str, Any]], AbstractContextManager[Any]],
    show: Callable[[Any, str, Sequence[Mapping[str, Any]]], Iterator[tuple[str, Any]]],
) -> Iterator[Write]:
    """Open the log of a tracker with W&B's interface, under an id of the run's own, which is kept in its folder."""
    module: Any = importlib.import_module(package)
    recipe = yaml.safe_load((directory / "recipe.yaml").read_text())
    folder = directory / package
    folder.mkdir(exist_ok=True)
    file = folder / "mm1.json"
    known: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {"id": uuid.uuid4().hex[:8], "step": 0}
    write_json(file, known)
    with start(directory, known["id"], recipe) as run:

        def write(line: Line, samples: Samples = NO_SAMPLES) -> None:
            if line["step"] > known["step"]:
                shown = {key: value for name, of_name in samples.items() for key, value in show(module, name, of_name)}
                figures = {_RENAMED.get((package, key), key): value for key, value in _figures(line).items()}
                run.log({**figures, **shown}, step=line["step"])
                known["step"] = line["step"]
                write_json(file, known)

        yield write


def _start_wandb(directory: Path, id: str, recipe: dict[str, Any]) -> AbstractContextManager[Any]:
    import wandb

    try:
        run: AbstractContextManager[Any] = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mm1"),
            name=recipe["name"],
            id=id,
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
    return run


@contextmanager
def _start_trackio(directory: Path, id: str, recipe: dict[str, Any]) -> Iterator[Any]:
    import trackio

    # A run of trackio is known by its name.
    project, name = os.environ.get("TRACKIO_PROJECT", "mm1"), f"{recipe['name']}-{id}"
    run = trackio.init(project=project, name=name, config=recipe, resume="allow", embed=False)
    try:
        yield run
    finally:
        run.finish()


def _figures(line: Line) -> dict[str, float]:
    return {key: float(value) for key, value in line.items() if key != "step"}


def _show_in_wandb(wandb: Any, name: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield what W&B logs of samples: pictures with their words below, which it keeps as files, and a table."""
    pictures = [(picture, _words(entry)) for entry in entries if (picture := _picture(entry))]
    if pictures:
        captions = [f"{prompt}\n{answer} (right: {right})" for _, (prompt, answer, right) in pictures]
        yield (
            f"samples/{name}",
            [wandb.Image(picture, caption=text) for (picture, _), text in zip(pictures, captions, strict=True)],
        )
    yield f"samples/{name}/answers", wandb.Table(columns=_COLUMNS, data=[_words(entry) for entry in entries])


def _show_in_trackio(trackio: Any, name: str, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Any]]:
    """Yield what trackio logs of samples: a table with the pictures."""
    pictures = [_picture(entry) for entry in entries]
    rows = [
        [trackio.Image(picture) if picture else None, *_words(entry)]
        for picture, entry in zip(pictures, entries, strict=True)
    ]
    yield f"samples/{name}", trackio.Table(columns=["picture", *_COLUMNS], data=rows)


def _as_markdown(entries: Sequence[Mapping[str, Any]]) -> str:
    rows = [[str(number), *_words(entry)] for number, entry in enumerate(entries)]
    cells = [["number", *_COLUMNS], ["---"] * 4, *rows]
    return "\n".join(f"| {' | '.join(' '.join(cell.replace('|', '/').split()) for cell in row)} |" for row in cells)


def _words(entry: Mapping[str, Any]) -> list[str]:
    """Return the prompt, the answer and the right answers of a sample."""
    answer = entry.get("prediction")
    answers = entry.get("answers") or []
    right = answers if isinstance(answers, str) else "; ".join(str(one).strip() for one in answers)
    return [str(entry.get("prompt", "")), f"error: {entry.get('error')}" if answer is None else str(answer), right]


def _picture(entry: Mapping[str, Any]) -> PILImage.Image | None:
    if not entry.get("image"):
        return None
    return PILImage.open(io.BytesIO(base64.b64decode(entry["image"]))).convert("RGB")
