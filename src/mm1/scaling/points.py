"""Points of a learning-rate sweep: size, learning rate, and score or loss.

    size,learning_rate,score,seed        a sweep: the optimum of each size is computed from its points
    size,learning_rate                   without score and loss: each row is the optimum of a size

The file is CSV with a header, JSON (a list of objects) or JSONL. `size` is the law's N, see `mm1.scaling.law`.
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
from mm1.nearest import did_you_mean

Measure = Literal["score", "loss"]
_KEYS = {"size", "learning_rate", "score", "loss", "seed"}


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        size: The law's N.
        learning_rate: The peak learning rate.
        value: Score or loss; None if the point is an optimum.
    """

    size: float
    learning_rate: float
    value: float | None


def read_points(path: Path) -> tuple[list[Point], Measure | None]:
    """Read the points of a sweep.

    Args:
        path: A file that ends in .csv, .json or .jsonl.

    Returns:
        The points, and the meaning of their values: `score` (higher is better), `loss`, or None for optima.

    Raises:
        UserError: If the file can't be read, or a row lacks a key, has an unknown one or a wrong value.
    """
    rows = list(_rows(path))
    if not rows:
        raise UserError(f"{path}: the file has no points: give rows of size, learning_rate and score or loss")
    measures = {key for _, row in rows for key in ("score", "loss") if row.get(key) not in (None, "")}
    if len(measures) > 1:
        raise UserError(f"{path}: the file has both scores and losses: keep the one that decides the optimum")
    measure: Any = next(iter(measures), None)
    return [_point(path, where, row, measure) for where, row in rows], measure


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row's position, for messages, and the row."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: the file can't be read ({error}): give a CSV, JSON or JSONL file of points") from None
    try:
        if path.suffix == ".csv":
            rows: Any = list(csv.DictReader(text.splitlines()))
        elif path.suffix == ".json":
            rows = json.loads(text)
        elif path.suffix == ".jsonl":
            rows = [json.loads(line) for line in text.splitlines() if line.strip()]
        else:
            raise UserError(f"{path}: the name must end in .csv, .json or .jsonl: rename the file by its format")
    except json.JSONDecodeError as error:
        raise UserError(f"{path}: not valid JSON ({error}): correct it") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(
            f"{path}: the file is not a list of points: give objects with size, learning_rate and score or loss"
        )
    for number, row in enumerate(rows, start=1):
        yield f"point {number}", row


def _point(path: Path, where: str, row: dict[str, Any], measure: Measure | None) -> Point:
    unknown = sorted(str(key) for key in set(row) - _KEYS)
    if unknown:
        raise UserError(f"{path}, {where}: key '{unknown[0]}' is unknown: {did_you_mean(unknown[0], sorted(_KEYS))}")
    size, rate = (_number(path, where, row, key) for key in ("size", "learning_rate"))
    for key, value in (("size", size), ("learning_rate", rate)):
        if value <= 0:
            raise UserError(f"{path}, {where}: {key} {value:g} must be above 0")
    return Point(size, rate, None if measure is None else _number(path, where, row, measure))


def _number(path: Path, where: str, row: dict[str, Any], key: str) -> float:
    value = row.get(key)
    if value is None or value == "":
        raise UserError(f"{path}, {where}: it has no {key}: add it, or remove the point")
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{path}, {where}: {key} '{value}' is not a number: remove the points of runs that diverged")
    return number
