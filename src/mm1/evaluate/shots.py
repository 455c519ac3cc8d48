"""Shots: the worked examples before a query, drawn by seed and by nothing else."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mm1.errors import UserError
from mm1.evaluate.items import Item, Items, field
from mm1.evaluate.task import Task


class ShotPool:
    """The items that shots are drawn from.

    A draw depends on the seed, the task and the query (or the query's set), never on the order of the
    queries; the first four of eight shots are the four shots.

    Args:
        task: Says how to draw.
        pool: Where to draw from.
        seed: Of the draws.

    Raises:
        UserError: If the pool's items lack the field that shots share with their query.
    """

    def __init__(self, task: Task, pool: Items, seed: int) -> None:
        self._task = task
        self._pool = pool
        self._seed = seed
        self._rows: dict[Any, np.ndarray] = {None: np.arange(len(pool))}
        if task.shots.same is not None:
            by_value: defaultdict[Any, list[int]] = defaultdict(list)
            for item in pool:
                by_value[field(item, task.shots.same, pool.name)].append(item.row)
            self._rows = {value: np.array(rows) for value, rows in by_value.items()}
        self._read = lru_cache(maxsize=4096)(pool.__getitem__)
        self._set = lru_cache(maxsize=4096)(self._draw_set)

    def draw(self, query: Item, count: int) -> tuple[Item, ...]:
        """Return `count` shots for a query; none of them shows the query's picture.

        Raises:
            UserError: If the pool has fewer that qualify.
        """
        if count == 0:
            return ()
        value = self._value(query)
        sets = self._task.shots.sets
        if sets is not None:
            first = _number(self._seed, self._task.name, "set of", query.id) % sets
            for step in range(sets):
                shots = self._set(value, (first + step) % sets, count)
                if not any(_alike(shot, query) for shot in shots):
                    return shots
        return self._choose(value, count, _number(self._seed, self._task.name, "query", query.id), query)

    def _value(self, query: Item) -> Any:
        same = self._task.shots.same
        value = None if same is None else field(query, same, self._task.data.corpus)
        if value not in self._rows:
            raise UserError(
                f"task {self._task.name}: '{query.id}' has {same} '{value}', which no item of {self._pool.name} "
                "has: shots with it can't be drawn"
            )
        return value

    def _draw_set(self, value: Any, index: int, count: int) -> tuple[Item, ...]:
        return self._choose(value, count, _number(self._seed, self._task.name, "set", str(value), str(index)))

    def _choose(self, value: Any, count: int, seed: int, query: Item | None = None) -> tuple[Item, ...]:
        rows = self._rows[value]
        chosen: list[Item] = []
        for row in rows[np.random.default_rng(seed).permutation(len(rows))]:
            shot = self._read(int(row))
            if not (query is not None and _alike(shot, query)) and not any(_alike(shot, c) for c in chosen):
                chosen.append(shot)
                if len(chosen) == count:
                    return tuple(chosen)
        what = f" with {self._task.shots.same} '{value}'" if self._task.shots.same else ""
        raise UserError(
            f"task {self._task.name}: {count} shots are asked for, and {self._pool.name} has {len(chosen)} with "
            f"different pictures{what}: ask for at most {len(chosen)}"
        )


def _alike(one: Item, other: Item) -> bool:
    """Whether two items are the same or show the same picture."""
    if one.images or other.images:
        return not set(one.images).isdisjoint(other.images)
    return one.id == other.id


def _number(*words: int | str | Sequence[str]) -> int:
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest())
