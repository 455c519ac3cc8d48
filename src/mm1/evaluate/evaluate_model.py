"""Scores a model on tasks at several numbers of shots; each pair has one result file.

A result file contains the whole protocol and every prediction, so a score can be explained and recomputed. A result
that exists for the same protocol, model and data is kept, also one with more draws of shots. An incomplete result is
resumed part by part. Two processes never make one result at the same time: the later one waits, and keeps it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from mm1.errors import UserError
from mm1.evaluate.distributed import own_group, wait_for_all
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.models.generator import Advance, Generator
from mm1.evaluate.result_page import write_result_page
from mm1.evaluate.scoring import PARTS_AT_ONCE, Result, Scorer
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.task import Task
from mm1.files import hold, write_json
from mm1.progress import progress_bar


def evaluate_model(
    generator: Generator,
    tasks: Sequence[Task],
    settings: EvaluationSettings,
    *,
    out_dir: Path,
    model_name: str,
    model_hash: str,
) -> list[Result]:
    """Score a model.

    Args:
        generator: The model.
        tasks: The tasks to score it on.
        settings: The settings of the scoring; their `tasks` are not used.
        out_dir: The folder for the results `{task}.{k}-shot.json`, each with a page of its predictions, `.html`.
        model_name: The model's name in the results.
        model_hash: The hash of the model's weights; a result with another hash is not kept.

    Returns:
        The contents of the result files, task by task.

    Raises:
        UserError: If two tasks have one name, a task's data is missing or doesn't fit the task, a pool has too few
            items for the shots, or the prompts don't fit the model's context.
    """
    for number, task in enumerate(tasks):
        if any(other.name == task.name and other != task for other in tasks[:number]):
            raise UserError(f"two tasks are called '{task.name}', as their results would be: give one another `name`")
    out_dir.mkdir(parents=True, exist_ok=True)
    model = {"model": model_name, "model_hash": model_hash, **getattr(generator, "protocol", {})}
    results = []
    bar = progress_bar()
    bar.disable = not own_group().leads
    with bar:
        for task in tasks:
            scorer = Scorer(generator, task, settings, model)
            for count in settings.shots:
                row = bar.add_task(f"{task.name}, {count}-shot", total=scorer.work(count), note="")
                result, kept = _scored(scorer, count, out_dir, partial(bar.advance, row))
                note = summary(result) + (_kept_note(result, scorer.seeds(count)) if kept else "")
                bar.update(row, completed=scorer.work(count), note=note)
                results.append(result)
    return results


def summary(result: Result) -> str:
    """Return a score as text, such as `accuracy 0.812 (0.804 to 0.820)`."""
    low, high = result["interval"]
    return f"{METRICS[result['metric']].title} {result['score']:.3f} ({low:.3f} to {high:.3f})"


def _scored(scorer: Scorer, count: int, out_dir: Path, advance: Advance) -> tuple[Result, bool]:
    """Return the result, and whether it existed already."""
    name = f"{scorer.task.name}.{count}-shot"
    file, folder = out_dir / f"{name}.json", out_dir / ".parts" / f"{name}.{scorer.protocol_hash(count)}"
    group, protocol = own_group(), scorer.protocol(count)
    with ExitStack() as stack:
        if group.leads and not _is_kept(_read(file), protocol):
            lock = out_dir / f".{folder.name}.lock"
            stack.enter_context(hold(lock, wait=True))
            stack.callback(lock.unlink, missing_ok=True)  # whoever waits for it, or makes it anew, finds the result
        wait_for_all()
        kept = group.from_first(lambda: _read(file))
        if kept is not None and _is_kept(kept, protocol):
            return kept, True
        return _score(scorer, count, file, folder, advance), False


def _score(scorer: Scorer, count: int, file: Path, folder: Path, advance: Advance) -> Result:
    """Make a result and its file; the parts are kept in a folder until then."""
    group = own_group()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{index:05d}.json" for index in range(len(scorer.parts))]
    share = range(group.number, len(files), group.count)
    missing = group.from_first(lambda: [index for index in share if _read(files[index]) is None])
    advance(sum(scorer.part_work(count, index) for index in set(share) - set(missing)))
    for start in range(0, len(missing), PARTS_AT_ONCE):
        indices = missing[start : start + PARTS_AT_ONCE]
        for index, part in zip(indices, scorer.answer(count, indices, advance), strict=True):
            if group.first:
                write_json(files[index], part, indent=1, shared=True)
    wait_for_all()
    if group.leads:
        result = scorer.result(count, [json.loads(part.read_text()) for part in files])
        write_json(file, result, indent=1, shared=True)
        write_result_page(result, scorer.source, scorer.pool, file.with_suffix(".html"))
        shutil.rmtree(folder)
        if not any(folder.parent.iterdir()):
            folder.parent.rmdir()
    wait_for_all()
    scored: Result = json.loads(file.read_text())
    return scored


def _is_kept(there: dict[str, Any] | None, asked: dict[str, Any]) -> bool:
    """Return whether a result is of the protocol that is asked for, with at least the draws of shots of that."""
    protocol, seeds = (there or {}).get("protocol", {}), asked["shot_seeds"]
    return {**protocol, "shot_seeds": seeds} == asked and protocol["shot_seeds"][: len(seeds)] == seeds


def _kept_note(result: Result, seeds: Sequence[int]) -> str:
    drawn = len(result["protocol"]["shot_seeds"])
    return f" (kept, {drawn} draws of shots)" if drawn > len(seeds) else " (kept)"


def _read(file: Path) -> dict[str, Any] | None:
    """Return a file's content; None if it is missing or damaged."""
    try:
        content = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None
