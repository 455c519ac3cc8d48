"""A study over sizes and learning rates as the points that `mm1 scale fit` takes."""

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
        runs: Of a study whose arms differ in the decoder's size and in `train.learning_rate`.
        file: A CSV file, made anew.
        tasks: Whose mean is the score; None: all that the runs were scored on.
        shots: Likewise.
        loss: Take the training loss at the end in place of the score.

    Returns:
        How many points.

    Raises:
        UserError: If no run is done, the file isn't called .csv, a run states no learning rate or starts from a
            pre-trained decoder, or the runs were not scored so.
    """
    if file.suffix != ".csv":
        raise UserError(f"{file}: points are written as CSV: name a file that ends in .csv")
    done = [run for run in runs if run.seconds is not None]
    if not done:
        raise UserError("none of the study's runs is done: make them first")
    values = [last_loss(run.directory) for run in done] if loss else _scores(runs, done, tasks, shots)
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["size", "learning_rate", "loss" if loss else "score", "seed"])
    for run, value in zip(done, values, strict=True):
        rate = run.recipe.train.learning_rate
        if rate is None:
            raise UserError(f"{run.name}: states no learning rate: set train.learning_rate in every arm of a sweep")
        writer.writerow([decoder_size(run.recipe), rate, f"{value:.6g}", run.seed])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, out.getvalue())
    return len(done)


def decoder_size(recipe: Recipe) -> int:
    """Return N of the law for a recipe's decoder, whatever its tower starts from.

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
