"""Makes a study's runs: one process per training, several at a time; completed runs are skipped.

    for each run:  mm1 study make RUN.yaml --to RUN   (several files: the same training, scored in several ways)

If a run fails, its name is printed and the others continue. Ctrl-C is passed on to the runs, which save a checkpoint;
the same command resumes them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from mm1.files import write_json, write_text
from mm1.progress import console, progress_bar
from mm1.ranks import is_first_rank
from mm1.study.plan import (
    DONE,
    TRAINED,
    StudyRun,
    scores_folder,
    training_seconds,
)
from mm1.study.processes import Processes
from mm1.study.version import RESULTS_VERSION


@dataclass(frozen=True)
class Failure:
    """A run that failed.

    Attributes:
        run: The run.
        reason: The last line of its log.
    """

    run: StudyRun
    reason: str


def make_run(files: Sequence[Path], directory: Path) -> None:
    """Train and score one or several runs of the same training, or resume them, and mark them as done.

    Under torchrun or SLURM every rank calls this function.

    Args:
        files: Recipes that differ only in `evaluate`; each file is removed when its run is done.
        directory: The directory that the runs share.

    Raises:
        UserError: See `mm1.train.pretrain.pretrain` and `mm1.evaluate.run.evaluate_run`.
        Stopped: If it was interrupted; a checkpoint has been saved.
    """
    from mm1.evaluate.during import scorer_during_training
    from mm1.evaluate.run import evaluate_run
    from mm1.evaluate.settings import EvaluationSettings
    from mm1.recipe import load_recipe
    from mm1.train.pretrain import pretrain

    recipes = {file: load_recipe(str(file)) for file in files}
    first = recipes[files[0]]
    before, began = training_seconds(directory), time.monotonic()
    try:
        pretrain(first, directory, scorer_during_training(first.evaluate))
    finally:
        if is_first_rank() and directory.is_dir():
            write_json(directory / TRAINED, {"seconds": before + time.monotonic() - began})
    for file, recipe in recipes.items():
        began = time.monotonic()
        scores = scores_folder(directory, recipe)
        evaluate_run(directory, settings=EvaluationSettings().over(recipe.evaluate), to=scores)
        if is_first_rank():
            evaluation = recipe.evaluate.model_dump(mode="json")
            write_json(
                scores / DONE,
                {"evaluate": evaluation, "seconds": time.monotonic() - began, "results_version": RESULTS_VERSION},
            )
            file.unlink()


def by_directory(runs: Sequence[StudyRun]) -> list[list[StudyRun]]:
    """Return the runs that are not done, grouped by training."""
    groups: dict[Path, list[StudyRun]] = {}
    for run in runs:
        if run.seconds is None:
            groups.setdefault(run.directory, []).append(run)
    return list(groups.values())


def make_runs(runs: Sequence[StudyRun], jobs: int = 1) -> list[Failure]:
    """Train and score the runs that are not done.

    Args:
        runs: The planned runs.
        jobs: Number of runs at a time, which share the cores equally.

    Returns:
        The runs that failed, with the last line of their logs.

    Raises:
        Stopped: On Ctrl-C or SIGTERM; completed runs are kept.
    """
    groups = by_directory(runs)
    done_before = len(runs) - sum(len(group) for group in groups)
    failures: list[Failure] = []
    processes = Processes(jobs)

    def make(group: Sequence[StudyRun]) -> str | None:
        return processes.call(group[0].name, make_command(group), group[0].log)

    with progress_bar() as bar, processes, ThreadPoolExecutor(jobs) as pool:
        task = bar.add_task("runs", total=len(runs), completed=done_before, note="")
        pending: dict[Future[str | None], list[StudyRun]] = {pool.submit(make, g): g for g in groups}
        while pending:
            done, _ = wait(pending, return_when=FIRST_COMPLETED, timeout=0.5)
            for future in done:
                group = pending.pop(future)
                reason = future.result()
                if reason is not None:
                    if processes.stopped:
                        continue
                    for run in (run for run in group if run.seconds is None):
                        failures.append(Failure(run, reason))
                        console.print(f"failed: {run.name}: {reason} (see {run.log})", style="yellow")
                bar.advance(task, len(group))
            bar.update(task, note=" · ".join(processes.running()))
    processes.raise_if_stopped()
    return failures


def make_command(group: Sequence[StudyRun]) -> list[str]:
    """Write the resolved recipes of one training's runs next to their directory; return the command that makes them."""
    directory = group[0].directory.absolute()
    directory.parent.mkdir(parents=True, exist_ok=True)
    files = [directory.with_suffix(f".{run.scores.name}.yaml") for run in group]
    for file, run in zip(files, group, strict=True):
        write_text(file, run.recipe.to_yaml())
    return ["study", "make", *map(str, files), "--to", str(directory)]
