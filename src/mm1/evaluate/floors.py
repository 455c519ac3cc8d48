"""Floors: scores that a model reaches without looking at the pictures."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from mm1.document import Image
from mm1.evaluate.prompts import frequent_answer
from mm1.evaluate.tasks.item import Item, Items, group_of
from mm1.evaluate.tasks.items import chosen_items
from mm1.evaluate.tasks.task import Task


def majority_answers(task: Task, items: Sequence[Item], pool: Items) -> list[str]:
    """Return for each item the most frequent answer of the pool that its shots come from.

    If shots share a field's value with their query, only pool items with that value count. This is the best guess of a
    model that reads the shots' text and sees no picture.
    """
    same = task.shots.same
    counts: defaultdict[Any, Counter[str]] = defaultdict(Counter)
    for shot in chosen_items(pool, task.pool.only):
        counts[group_of(shot, same, pool.name)][frequent_answer(shot)] += 1
    # Ties go to the first answer in the alphabet, so that the order of the pool doesn't matter.
    best = {value: min(c, key=lambda answer: (-c[answer], answer)) for value, c in counts.items()}
    return [best.get(group_of(item, same, task.data.title), "") for item in items]


def swap_pictures(items: Sequence[Item], seed: int) -> list[Item]:
    """Give every item another item's pictures.

    The distinct pictures are shuffled by the seed, and each replaces the one before it, so items that share a picture
    still share one. If all items have the same picture, they stay unchanged.
    """
    pictures = sorted({item.images for item in items}, key=_order)
    order = np.random.default_rng(seed).permutation(len(pictures))
    shuffled = [pictures[index] for index in order]
    following = dict(zip(shuffled, [*shuffled[1:], *shuffled[:1]], strict=True))
    return [replace(item, images=following[item.images]) for item in items]


def _order(images: tuple[Image, ...]) -> list[tuple[bytes, str]]:
    return [(image.data or b"", image.path or "") for image in images]
