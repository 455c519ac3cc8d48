"""Points of a learning-rate sweep: what was trained at which rate, and what came of it.

    size,learning_rate,score,seed        a sweep: the optimum of each size is found from its points
    size,learning_rate                   no score and no loss: each row is a size's optimum already

CSV with a header, JSON (a list of objects) or JSONL. `size` is N of the law, see `mm1.scaling.law`.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mm1.errors import UserError

Measure = Literal["score", "loss"]
_KEYS = {"size", "learning_rate", "score", "loss", "seed"}


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        size: N of the law.
        learning_rate: Peak.
        value: Score or loss; None for a point that is an optimum already.
    """

    size: float
    learning_rate: float
    value: float | None


def read_points(path: Path) -> tuple[list[Point], Measure | None]:
    """Read the points of a sweep.

    Args:
        path: Ends in .csv, .json or .jsonl.

    Returns:
        The points, and what their value is: `score` (the more the better), `loss`, or None for optima.

    Raises:
        UserError: If the file can't be read, or a row lacks a key, has an unknown one or a wrong value.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path}: has no points: give rows of size, learning_rate and score or loss")
    measures = {key for _, row in rows for key in ("score", "loss") if row.get(key) not in (None, "")}
    if len(measures) > 1:
        raise UserError(f"{path}: has both scores and losses: keep the one that the optimum is to be found by")
    measure: Any = next(iter(measures), None)
    return [_point(path, place, row, measure) for place, row in rows], measure


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the rows and where each stands."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read ({error}): give a CSV, JSON or JSONL file of points") from None
    try:
        if path.suffix == ".csv":
            rows: Any = list(csv.DictReader(text.splitlines()))
        elif path.suffix == ".json":
            rows = json.loads(text)
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise UserError(f"{path}: is neither .csv nor .json nor .jsonl: name it by its format")
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: points are a list of objects with size, learning_rate and score or loss")
    for number, row in enumerate(rows, start=1):
        yield f"point {number}", row


def _point(path: Path, place: str, row: dict[str, Any], measure: Measure | None) -> Point:
    unknown = sorted(str(key) for key in set(row) - _KEYS)
    if unknown:
        raise UserError(f"{path}, {place}: '{unknown[0]}' is unknown: the keys are {', '.join(sorted(_KEYS))}")
    size, rate = (_number(path, place, row, key) for key in ("size", "learning_rate"))
    for key, value in (("size", size), ("learning_rate", rate)):
        if value <= 0:
            raise UserError(f"{path}, {place}: {key} {value:g} must be above 0")
    return Point(size, rate, None if measure is None else _number(path, place, row, measure))


def _number(path: Path, place: str, row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    if value is None or value == "":
        raise UserError(f"{path}, {place}: has no {key}")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}, {place}: {key} '{value}' is not a number; leave out runs that diverged")
    return number
