"""Shots: the worked examples before a query, drawn only by seed or by similarity."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.tasks.item import Item, Items, group_of
from mm1.evaluate.tasks.items import chosen_items, chosen_rows
from mm1.evaluate.tasks.task import Task

Embed = Callable[[Sequence[Image]], np.ndarray]
_EMBEDDED_AT_ONCE = 256


class ShotPool:
    """The items that shots are drawn from.

    A draw depends on the seed, the task and the query (or the query's shot set), never on the order of the queries.
    The four shots of a query are the first four of its eight random shots.

    Args:
        task: The task; it says how to draw.
        pool: The items to draw from.
        embed: Maps N pictures to their features (N, D) of length 1, for nearest shots.

    Raises:
        UserError: If the pool's items lack the field that shots share with their query, or the task wants nearest
            shots and the model doesn't embed pictures.
    """

    def __init__(self, task: Task, pool: Items, embed: Embed | None = None) -> None:
        self._task = task
        self._pool = pool
        self._embed = embed
        same, only = task.shots.same, task.pool.only
        self._rows: dict[Any, np.ndarray] = {None: np.arange(len(pool))}
        if same is not None:
            by_value: defaultdict[Any, list[int]] = defaultdict(list)
            for item in chosen_items(pool, only):
                by_value[group_of(item, same, pool.name)].append(item.row)
            self._rows = {value: np.array(rows) for value, rows in by_value.items()}
        elif only is not None:
            rows = [row for _, row in chosen_rows(pool, only)]
            self._rows = {None: np.array(rows)} if rows else {}
        self._read = lru_cache(maxsize=4096)(pool.__getitem__)
        self._set = lru_cache(maxsize=4096)(self._draw_set)
        self._features: np.ndarray | None = None

    def draw(self, query: Item, count: int, seed: int) -> tuple[Item, ...]:
        """Return `count` shots for a query; none of them shows the query's picture.

        Raises:
            UserError: If the pool has too few such items.
        """
        if count == 0:
            return ()
        value = self._value(query)
        if self._task.shots.selection == "nearest":
            return self._nearest(query, value, count)
        sets = self._task.shots.sets
        if sets is not None:
            first = _number(seed, self._task.name, "set of", query.id) % sets
            for step in range(sets):
                shots = self._set(value, (first + step) % sets, count, seed)
                if not any(self._alike(shot, query) for shot in shots):
                    return shots
        order = self._order(value, _number(seed, self._task.name, "query", query.id))
        return self._first(order, value, count, query)

    def _value(self, query: Item) -> Any:
        same = self._task.shots.same
        value = group_of(query, same, self._task.data.title)
        if value not in self._rows:
            raise UserError(
                f"task {self._task.name}: '{query.id}' has {same} '{value}', and no item of {self._pool.name} has it, "
                "so there are no shots: add such items, or change shots.same"
            )
        return value

    def _draw_set(self, value: Any, index: int, count: int, seed: int) -> tuple[Item, ...]:
        order = self._order(value, _number(seed, self._task.name, "set", str(value), str(index)))
        return self._first(order, value, count)

    def _order(self, value: Any, seed: int) -> np.ndarray:
        return np.random.default_rng(seed).permutation(self._rows[value])

    def _first(self, order: Iterable[int], value: Any, count: int, query: Item | None = None) -> tuple[Item, ...]:
        """Return the first `count` items of an order that share no picture with each other or the query."""
        chosen: list[Item] = []
        for row in order:
            shot = self._read(int(row))
            if not any(self._alike(shot, other) for other in (*([query] if query else []), *chosen)):
                chosen.append(shot)
                if len(chosen) == count:
                    return tuple(chosen)
        having = f" and {self._task.shots.same} '{value}'" if self._task.shots.same else ""
        raise UserError(
            f"task {self._task.name}: it needs {count} shots, and {self._pool.name} has only {len(chosen)} items with "
            f"different pictures{having}: use at most {len(chosen)} shots"
        )

    def _alike(self, one: Item, other: Item) -> bool:
        """Return whether two items are the same, share a picture, or are forms of one question."""
        together = self._task.together
        if together is not None and one.fields.get(together) == other.fields.get(together):
            return True
        if one.images or other.images:
            return not set(one.images).isdisjoint(other.images)
        return one.id == other.id

    def _nearest(self, query: Item, value: Any, count: int) -> tuple[Item, ...]:
        """Return the shots whose first pictures are most similar to the query's, the most similar one last.

        Retrieval of in-context examples by similarity (RICES; Yang et al. 2022, Flamingo appendix A.2).
        """
        if not query.images:
            raise UserError(
                f"task {self._task.name}: '{query.id}' has no picture, which nearest shots need: set "
                "shots.selection: random"
            )
        if self._features is None:
            self._features = self._embedded()
        (own,) = self._embedding([query])
        rows = self._rows[value]
        similarity = self._features[rows] @ own
        # Ties go to the lower row, so that the choice is the same on every machine.
        return self._first(rows[np.lexsort((rows, -similarity))], value, count, query)[::-1]

    def _embedded(self) -> np.ndarray:
        rows = range(len(self._pool))
        parts = [
            self._embedding([self._pool[row] for row in rows[start : start + _EMBEDDED_AT_ONCE]])
            for start in range(0, len(rows), _EMBEDDED_AT_ONCE)
        ]
        return np.concatenate(parts)

    def _embedding(self, items: Sequence[Item]) -> np.ndarray:
        if self._embed is None:
            raise UserError(
                f"task {self._task.name}: nearest shots need a model that embeds pictures, and this one doesn't: set "
                "shots.selection: random"
            )
        without = [item.id for item in items if not item.images]
        if without:
            raise UserError(
                f"task {self._task.name}: '{without[0]}' of {self._pool.name} has no picture, which nearest shots "
                "need: set shots.selection: random"
            )
        return self._embed([item.images[0] for item in items])


def _number(*words: int | str) -> int:
    return int.from_bytes(hashlib.blake2b(repr(words).encode(), digest_size=8).digest())
