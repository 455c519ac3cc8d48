"""Writes the points for `mm1 scale fit` from a study over sizes and learning rates."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mm1.errors import UserError
from mm1.files import write_text
from mm1.model.sizes import non_embedding_parameters
from mm1.recipe import Recipe, VisionRecipe
from mm1.scaling.subject import shape_of
from mm1.study.plan import StudyRun
from mm1.study.results import last_loss, read_study


def write_points(
    runs: Sequence[StudyRun], file: Path, tasks: Sequence[str] | None, shots: Sequence[int] | None, loss: bool
) -> int:
    """Write a point for every run that is done: size, learning rate, score or loss, seed.

    Args:
        runs: Runs of a study whose arms differ in the decoder's size and in `train.learning_rate`.
        file: The CSV file to write.
        tasks: The tasks whose mean is the score; None: all tasks of the runs.
        shots: The numbers of shots that the mean includes; None: all of the runs.
        loss: Whether to write the final training loss instead of the score.

    Returns:
        The number of points.

    Raises:
        UserError: If no run is done, the file's name doesn't end in .csv, a run has no learning rate or starts from a
            pre-trained decoder, or the runs lack these scores.
    """
    if file.suffix != ".csv":
        raise UserError(f"{file}: points are written as CSV: name a file that ends in .csv")
    done = [run for run in runs if run.seconds is not None]
    if not done:
        raise UserError("none of the study's runs is done: make them with `mm1 study run` or `mm1 scale sweep`")
    values = [last_loss(run.directory) for run in done] if loss else _scores(runs, done, tasks, shots)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["size", "learning_rate", "loss" if loss else "score", "seed"])
    for run, value in zip(done, values, strict=True):
        rate = run.recipe.train.learning_rate
        if rate is None:
            raise UserError(f"{run.name}: it has no learning rate: set train.learning_rate in every arm of a sweep")
        writer.writerow([decoder_size(run.recipe), rate, f"{value:.6g}", run.seed])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, out.getvalue())
    return len(done)


def decoder_size(recipe: Recipe) -> int:
    """Return the law's N for a recipe's decoder; the tower may be pre-trained.

    Raises:
        UserError: If the decoder starts from pre-trained weights.
    """
    model = recipe.model.model_copy(update={"vision": VisionRecipe()})
    return non_embedding_parameters(shape_of(recipe.model_copy(update={"model": model})))


def _scores(
    runs: Sequence[StudyRun], done: Sequence[StudyRun], tasks: Sequence[str] | None, shots: Sequence[int] | None
) -> list[float]:
    results = read_study(runs)
    means = np.mean([scores.points for scores in results.select(tasks, shots)], axis=0)
    return [float(means[results.arms.index(run.arm), results.seeds.index(run.seed)]) for run in done]
