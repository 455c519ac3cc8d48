"""Headline figures: a recipe's scores over several seeds, as a file that can be committed and a Markdown table.

    result folders of at least three runs -> rows: mean, range over seeds, interval -> JSON -> table in a page

The interval counts three sources of chance: seeds (other initial weights and another order of the data), draws of the
shots, and items. Their errors add up, each with its own degrees of freedom (`mm1.confidence.chance_above`).
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mm1.confidence import Error, reach
from mm1.errors import UserError
from mm1.evaluate.bootstrap import ITEM_RESAMPLES, resampled_scores
from mm1.evaluate.ceiling import perfect_score
from mm1.evaluate.compare import differing_protocol, read_results, result_statistics
from mm1.evaluate.metrics import METRICS
from mm1.files import write_text

FEWEST_RUNS = 3

Headline = dict[str, Any]


def headline(runs: Sequence[Path], *, seed: int = 0) -> Headline:
    """Return the scores of several runs of one recipe.

    Args:
        runs: Directories of runs that differ in the seed alone, or of their results.
        seed: The seed of the resamples.

    Returns:
        JSON values: `runs`, and `rows`, one for each task and number of shots.

    Raises:
        UserError: If there are fewer than three runs or one model twice; if the runs were not scored on the same tasks
            by the same protocol; or if shots were drawn only once.
    """
    if len(runs) < FEWEST_RUNS:
        raise UserError(
            f"headline: {len(runs)} runs are too few for the spread over seeds: name at least {FEWEST_RUNS}"
        )
    results = [read_results(run) for run in runs]
    for run, each in zip(runs, results, strict=True):
        if missing := sorted(results[0].keys() ^ each.keys()):
            task, shots = missing[0]
            raise UserError(
                f"{run}: it and {runs[0]} were not both scored on {task} at {shots} shots: score all runs with the "
                "same --tasks and --shots"
            )
    rows = [_row(runs, [each[key] for each in results], seed) for key in results[0]]
    return {"runs": [_name(run) for run in runs], "machines": _machines(runs), "rows": rows}


def _row(runs: Sequence[Path], results: Sequence[dict[str, Any]], seed: int) -> dict[str, Any]:
    first = results[0]
    name = f"{first['task']} at {first['shots']} shots"
    hashes = [result["protocol"].get("model_hash") for result in results]
    for number, result in enumerate(results):
        if hashes[number] in hashes[:number]:
            raise UserError(f"{name}: {runs[number]} and an earlier run are the same model: name runs of other seeds")
        if (differs := differing_protocol(first["protocol"], result["protocol"])) is not None:
            raise UserError(f"{name}: the runs were scored differently ({differs}): score all with the same settings")
    metric = METRICS[first["metric"]]
    statistics = [result_statistics(result) for result in results]
    by_draw = 100 * np.array([[float(metric.score(draw)) for draw in each] for each in statistics])  # (runs, draws)
    draws = by_draw.shape[1]
    if first["shots"] and draws < 2:
        raise UserError(f"{name}: the shots were drawn once: score every run with --draws 3, so that draws can count")
    resampled = 100 * np.mean([resampled_scores(metric, each, seed, ITEM_RESAMPLES) for each in statistics], axis=0)
    by_seed = by_draw.mean(axis=1)
    errors = {
        "seeds": Error(float(by_seed.std(ddof=1)) / len(runs) ** 0.5, len(runs) - 1),
        "draws": Error(float(by_draw.mean(axis=0).std(ddof=1)) / draws**0.5 if draws > 1 else 0.0, max(1, draws - 1)),
        "items": Error(float(resampled.std(ddof=1)), max(1, first["items"] - 1)),
    }
    perfect = perfect_score(first["metric"], [prediction["answers"] for prediction in first["predictions"]])
    return {
        "task": first["task"],
        "metric": first["metric"],
        "shots": first["shots"],
        "items": first["items"],
        "draws": draws,
        "by_seed": _rounded(by_seed),
        "mean": round(float(by_seed.mean()), 2),
        "half_interval": round(reach(list(errors.values())), 2),
        "errors": {source: round(error.size, 3) for source, error in errors.items()},
        "perfect": None if perfect is None else round(100 * perfect, 1),
        "floors": {
            floor: _rounded(100 * np.array([result["floors"][floor]["score"] for result in results]))
            for floor in first["floors"]
        },
    }


def write_headline(content: Headline, file: Path, page: Path | None = None) -> None:
    """Write the figures as JSON, and as a table into a Markdown page between two marks.

    Args:
        content: The figures.
        file: The JSON file.
        page: The page, which has the marks `<!-- headline: FILE -->` and `<!-- end of headline -->`; FILE is the
            file's path from the page's folder.

    Raises:
        UserError: If the page lacks the marks.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    if page is not None:
        marked = _marks(page, file)
        text = page.read_text(encoding="utf-8")
        if marked.search(text) is None:
            raise UserError(
                f"{page}: it has no place for the table: add the lines `<!-- headline: {_seen_from(page, file)} -->` "
                "and `<!-- end of headline -->`"
            )
        write_text(page, marked.sub(lambda found: f"{found[1]}\n{headline_table(content)}\n{found[3]}", text))
    write_text(file, json.dumps(content, indent=1) + "\n")


def table_in_page(page: Path, file: Path) -> str | None:
    """Return the table that a page has for a file of figures; None if it has no marks for it."""
    found = _marks(page, file).search(page.read_text(encoding="utf-8"))
    return found[2].strip() if found else None


def headline_table(content: Headline) -> str:
    """Return the figures as a Markdown table: a row a task, a column a number of shots, then the floors."""
    rows = content["rows"]
    counts = sorted({row["shots"] for row in rows})
    floors = list(dict.fromkeys(floor for row in rows for floor in row["floors"]))
    heads = ["task", *(f"{count} shots" for count in counts), *(f"floor: {floor}" for floor in floors)]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " --- |" * (len(heads) - 1)]
    for task in dict.fromkeys(row["task"] for row in rows):
        own = {row["shots"]: row for row in rows if row["task"] == task}
        one = next(iter(own.values()))
        cells = [_title(one), *(_cell(own.get(count)) for count in counts)]
        for floor in floors:
            values = [value for row in own.values() for value in row["floors"].get(floor, ())]
            cells.append(_span(values) if values else "")
        lines.append(f"| {' | '.join(cells)} |")
    seeds, draws = len(content["runs"]), max(row["draws"] for row in rows)
    lines += [
        "",
        f"Mean over {seeds} seeds ± half of the 95 % interval, which counts seeds, {draws} draws of shots and items; "
        "in brackets the lowest and the highest seed.",
    ]
    return "\n".join(lines)


def _title(row: dict[str, Any]) -> str:
    unit = "in %" if row["perfect"] is None else f"x 100 (a perfect model: {row['perfect']:.0f})"
    return f"{row['task']}, {METRICS[row['metric']].title} {unit}, {row['items']:,} items"


def _cell(row: dict[str, Any] | None) -> str:
    if row is None:
        return ""
    digits = 1 if row["perfect"] is None else 0
    low, high = min(row["by_seed"]), max(row["by_seed"])
    return f"{row['mean']:.{digits}f} ± {row['half_interval']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{low} to {high}"


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 2) for value in values]


def _name(run: Path) -> str:
    """Return a run's path as it was given, without the folders of this machine."""
    return str(run) if not run.is_absolute() else run.name


def _machines(runs: Sequence[Path]) -> list[str]:
    machines = []
    for run in runs:
        file = run / "environment.json"
        content = json.loads(file.read_text()) if file.is_file() else {}
        if content:
            machines.append(f"{content.get('cores')} cores of {content.get('machine')}, torch {content.get('torch')}")
    return list(dict.fromkeys(machines))


def _seen_from(page: Path, file: Path) -> str:
    return Path(os.path.relpath(file.resolve(), page.resolve().parent)).as_posix()


def _marks(page: Path, file: Path) -> re.Pattern[str]:
    return re.compile(
        rf"(<!-- headline: {re.escape(_seen_from(page, file))} -->)(.*?)(<!-- end of headline -->)", re.DOTALL
    )
