"""Scoring a model directory on tasks by name: what `mm1 evaluate` does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.evaluate.loading import HUB, load_generator, model_directory, model_hash
from mm1.evaluate.ranks import start_ranks
from mm1.evaluate.runner import Result, evaluate
from mm1.evaluate.task import load_task


def evaluate_model(
    path: Path | str,
    tasks: Sequence[str],
    *,
    shots: Sequence[int] = (0, 4, 8),
    limit: int | None = None,
    batch_size: int = 64,
    seed: int = 0,
    draws: int = 1,
    out_dir: Path | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> list[Result]:
    """Score a run or a model directory.

    Args:
        path: A run directory with a finished model, a model directory, or `hub:owner/name`.
        tasks: Names of packaged tasks, or task files.
        shots: Numbers of shots.
        limit: Items per task, at most.
        batch_size: Prompts per forward pass; changes the speed, not the scores.
        seed: Of the choice of items, shots, swapped pictures and resamples.
        draws: How many times shots are drawn anew; the score is the mean.
        out_dir: Where results go; default: `scores` in the run (or model) directory.
        device: `auto`, or a torch device.
        dtype: `auto` (float32 on CPU, bfloat16 on GPU), or a torch dtype's name.

    Returns:
        The content of the result files (see `mm1.evaluate.runner`).

    Raises:
        UserError: If there is no such model, task or data, or they don't fit each other.
    """
    start_ranks()
    loaded = [load_task(task) for task in tasks]
    directory = model_directory(path)
    generator = load_generator(directory, batch_size=batch_size, device=device, dtype=dtype)
    return evaluate(
        generator,
        loaded,
        shots=shots,
        limit=limit,
        seed=seed,
        draws=draws,
        out_dir=out_dir or scores_directory(path),
        model_name=str(path),
        model_hash=model_hash(directory),
    )


def scores_directory(path: Path | str) -> Path:
    """Return where a model's results go: `scores` in its directory, or `scores/owner--name` for one of the Hub."""
    if str(path).startswith(HUB):
        return Path("scores") / str(path).removeprefix(HUB).replace("/", "--")
    return Path(path) / "scores"
