"""Scores one model on one task: builds prompts, generates answers part by part, computes scores and floors.

    rows of the task's source -> parts of up to 64 -> answers of a part (a JSON value) -> result

A part's answers depend only on the protocol, so any rank can compute a part, in any order, also after a restart.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.bootstrap import bootstrap_interval
from mm1.evaluate.ceiling import perfect_score
from mm1.evaluate.floors import majority_answers, swap_pictures
from mm1.evaluate.item_groups import lowest_of_groups
from mm1.evaluate.likelihood import choose_options, query_prompt
from mm1.evaluate.metrics import METRICS, Metric
from mm1.evaluate.models.generator import Advance, Answer, ContextTooShort, Generator
from mm1.evaluate.prompts import PromptStyle, as_text, build_prompt, shown_answer
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.shots import ShotPool
from mm1.evaluate.subsets import score_subsets
from mm1.evaluate.tasks.item import Item, field
from mm1.evaluate.tasks.items import chosen_items, chosen_rows, open_items, read_ids
from mm1.evaluate.tasks.options import right_words
from mm1.evaluate.tasks.task import Task
from mm1.look.pictures import thumbnail

FORMAT = 4
PART = 64
PARTS_AT_ONCE = 16
"""Parts that are generated together, so that more prompts share a beginning."""
FLOOR_ITEMS = 1024
"""The floor of swapped pictures is scored on at least this many items (whole parts, a random sample)."""
PICTURES_KEPT = 24
"""Number of predictions that contain the query's picture, for reports."""
RIGHT_ANSWER = "right_answer"
"""Key of a prediction with the log-likelihood of the right answer, in nats."""
PICTURE_SIDE = 256
"""Largest width and height of a picture in a result, in pixels."""

Result = dict[str, Any]
Part = dict[str, Any]
T = TypeVar("T")


class Scorer:
    """Scores one task; opens its items and its pool.

    Args:
        generator: The model.
        task: The task to score it on.
        settings: The settings of the scoring.
        model: The keys of the protocol that describe the model.

    Raises:
        UserError: If the task's data is missing or doesn't fit the task.
    """

    def __init__(
        self, generator: Generator, task: Task, settings: EvaluationSettings, model: Mapping[str, str]
    ) -> None:
        self.generator, self.task, self.settings, self.model = generator, task, settings, model
        plain = settings.plain or task.plain or task.likelihood is not None
        chat = generator.takes_turns and not plain
        self.style = PromptStyle(chat, settings.detailed_shots)
        self.asks_right_answers = settings.right_answers and task.likelihood is None
        self.metric = METRICS[task.metric]
        self.source = open_items(task.data)
        self.pool = self.source if task.pool == task.data else open_items(task.pool)
        self.shots = ShotPool(task, self.pool, getattr(generator, "embed", None))
        chosen: defaultdict[tuple[str, int], list[int]] = defaultdict(list)  # rows that count as one: mostly each alone
        if task.together is None:
            for id, row in chosen_rows(self.source, task.data.only):
                chosen[id, row].append(row)
        else:
            for item in chosen_items(self.source, task.data.only):
                chosen[self._key(item), 0].append(item.row)
        if not chosen:
            raise UserError(f"task {task.name}: {self.source.name} has no items: check the task's data")
        # The order depends on the seed even without a limit, so that the first predictions are a random sample.
        keys = sorted(chosen, key=lambda key: (_hash(str(settings.seed), key[0]), key[1]))[: settings.limit]
        self.rows = [row for key in keys for row in chosen[key]]
        shares = np.array_split(np.arange(len(keys)), math.ceil(len(self.rows) / PART))
        self.parts = [[row for place in share for row in chosen[keys[place]]] for share in shares if len(share)]
        self._starts = list(itertools.accumulate((len(part) for part in self.parts), initial=0))
        self._count = len(keys)
        self._items = list(
            self.source.without_pictures(self.rows)
        )  # now, so that what doesn't fit the task is told now
        only = (task.data.only, task.pool.only)
        self._ids_hash = _hash(*("" if ids is None else _hash(*sorted(read_ids(ids)[0])) for ids in only))

    def seeds(self, count: int) -> list[int]:
        """Return the seeds of the draws of `count` shots; a single one if nothing is drawn."""
        once = (count or self.task.shots.text_only_at_zero) == 0 or self.task.shots.selection == "nearest"
        return [self.settings.seed + draw for draw in range(1 if once else self.settings.draws)]

    def work(self, count: int) -> int:
        """Return the number of prompts to answer, including those of the floors."""
        return sum(self.part_work(count, index) for index in range(len(self.parts)))

    def part_work(self, count: int, index: int) -> int:
        """Return the number of prompts of one part, including those of the floors."""
        return len(self.parts[index]) * (len(self.seeds(count)) + self._swaps(index))

    def _swaps(self, index: int) -> bool:
        """Return whether a part counts for the floor of swapped pictures: the first parts do, up to `FLOOR_ITEMS`."""
        return "swapped pictures" in self.task.floors and self._before(index) < FLOOR_ITEMS

    def _before(self, index: int) -> int:
        """Return the number of items in the parts before a part."""
        return self._starts[index]

    def protocol(self, count: int) -> dict[str, Any]:
        """Return everything that the result depends on, as JSON values."""
        task = self.task
        return {
            "format": FORMAT,
            "prompt": task.chat_prompt or task.prompt if self.style.chat else task.prompt,
            "answer": task.answer,
            "separator": task.separator,
            "stop": task.stop,
            "max_new_tokens": task.max_new_tokens,
            "decoding": f"likelihood, {task.likelihood}" if task.likelihood else "greedy",
            "postprocess": task.postprocess,
            "metric": task.metric,
            "metric_source": self.metric.source,
            "also": task.also,
            "items": task.data.model_dump(mode="json", exclude_none=True),
            "limit": self.settings.limit,
            "shots": count,
            "shot_source": self.pool.name,
            "shot_selection": _selection(task),
            "shot_seeds": self.seeds(count),
            "text_only_shots": task.shots.text_only_at_zero if count == 0 else 0,
            "floors": list(task.floors),
            "seed": self.settings.seed,
            "together": task.together,
            "data_hash": _hash(self.source.data_hash, self.pool.data_hash, self._ids_hash),
            **({"after": task.after} if task.after else {}),
            **({"subsets": task.subsets} if task.subsets else {}),
            **({"right_answers": "as turns" if self.style.chat else True} if self.asks_right_answers else {}),
            **self.style.protocol(),
            **self.model,
        }

    def protocol_hash(self, count: int) -> str:
        """Return a hash of the protocol."""
        return _hash(json.dumps(self.protocol(count), sort_keys=True))

    def answer(self, count: int, indices: Sequence[int], advance: Advance) -> list[Part]:
        """Generate the answers of several parts and of their floors together.

        Returns:
            For each part `{"draws": [answers of each draw], "swapped": answers or None}`; an answer is `{"prediction",
            "shot_ids", "prompt"}` or has an `error`. The very first part also has the `example_prompt`.
        """
        items = [[self.source[row] for row in self.parts[index]] for index in indices]
        parts: list[Part] = [{"draws": [], "swapped": None} for _ in indices]
        every = [item for part in items for item in part]
        for seed in self.seeds(count):
            shots = [self._draw(item, count, seed) for item in every]
            prompts, answers = self._generate(every, shots, advance)
            entries = [
                {**_as_json(answer), "shot_ids": [shot.id for shot in drawn], "prompt": as_text(prompt)}
                for answer, drawn, prompt in zip(answers, shots, prompts, strict=True)
            ]
            for part, own in zip(parts, _split(entries, items), strict=True):
                part["draws"].append(own)
            if self.asks_right_answers:
                for entry, value in zip(entries, self._right_answers(prompts, every, shots), strict=True):
                    entry[RIGHT_ANSWER] = value
            if seed == self.settings.seed:
                first_shots, first_prompt = _split(shots, items), prompts[0]
        swapping = [place for place, index in enumerate(indices) if self._swaps(index)]
        if swapping:
            swapped = [swap_pictures(items[place], self.settings.seed) for place in swapping]
            drawn_shots = [drawn for place in swapping for drawn in first_shots[place]]
            _, blind = self._generate([item for part in swapped for item in part], drawn_shots, advance)
            for place, given in zip(swapping, _split(blind, swapped), strict=True):
                parts[place]["swapped"] = [_as_json(answer) for answer in given]
        if indices[0] == 0:
            parts[0]["example_prompt"] = _parts_as_json(first_prompt)
        for part, index, own_items in zip(parts, indices, items, strict=True):
            _keep_pictures(part["draws"][0], own_items, PICTURES_KEPT - self._before(index))
        return parts

    def result(self, count: int, parts: Sequence[Part]) -> Result:
        """Return the result of all parts: score, interval, floors, predictions."""
        draws = [[answer for part in parts for answer in part["draws"][draw]] for draw in range(len(self.seeds(count)))]
        statistics = self._statistics(draws, self.metric)
        each = [[float(self.metric.score(rows[i : i + 1])) for i in range(len(rows))] for rows in statistics]
        predictions = []
        for i, item in enumerate(self._items):
            first, *others = ({**draw[i], "score": each[d][i]} for d, draw in enumerate(draws))
            more: dict[str, Any] = {"other_draws": others} if others else {}
            if self.task.together is not None:
                more["together"] = self._key(item)
            if self.metric.reads_options and item.options:
                more["options"] = list(item.options)
            answers = list(self._references(item))
            predictions.append({"id": item.id, "corpus_row": item.row, **first, "answers": answers, **more})
        seeds = self.seeds(count)
        scores = [float(self.metric.score(rows)) for rows in self._counted(draws, self.metric)]
        return {
            "task": self.task.name,
            "shots": count,
            "metric": self.task.metric,
            **self._score(draws, self.metric),
            "items": self._count,
            "errors": sum("error" in answer for answer in draws[0]),
            "seed": self.settings.seed,
            "draws": [{"seed": seed, "score": score} for seed, score in zip(seeds, scores, strict=True)],
            **self._perfect(),
            **self._mean_likelihood(draws),
            "also": {name: self._score(draws, METRICS[name]) for name in self.task.also},
            **score_subsets(self.task, self._items, statistics, self.metric, self.settings.seed),
            "floors": self._floors(parts),
            "protocol": self.protocol(count),
            "example_prompt": parts[0]["example_prompt"],
            "predictions": predictions,
        }

    def _perfect(self) -> dict[str, float]:
        """Return the score of a perfect model under its key; nothing where it is 1."""
        perfect = perfect_score(self.task.metric, [self._references(item) for item in self._items])
        return {} if perfect is None else {"perfect": perfect}

    def _mean_likelihood(self, draws: Sequence[Sequence[Part]]) -> dict[str, Any]:
        """Return the mean log-likelihood of the right answers under its key; nothing if it wasn't asked for."""
        if not self.asks_right_answers:
            return {}
        values = np.array([[answer[RIGHT_ANSWER] for answer in draw] for draw in draws], dtype=np.float64)
        return {RIGHT_ANSWER: {"log_likelihood": None if np.isnan(values).all() else float(np.nanmean(values))}}

    def _draw(self, item: Item, count: int, seed: int) -> tuple[Item, ...]:
        """Return an item's shots; at 0 shots, the text-only shots if the task has any."""
        if count > 0 or not self.task.shots.text_only_at_zero:
            return self.shots.draw(item, count, seed)
        drawn = self.shots.draw(item, self.task.shots.text_only_at_zero, seed)
        return tuple(replace(shot, images=()) for shot in drawn)

    @cached_property
    def _majority(self) -> list[str]:
        return majority_answers(self.task, self._items, self.pool)

    def _floors(self, parts: Sequence[Part]) -> dict[str, Any]:
        floors: dict[str, Any] = {}
        if "majority" in self.task.floors:
            answers = self._majority
            shown = answers[0] if self.task.shots.same is None else f"one per {self.task.shots.same}"
            guesses = [{"prediction": answer} for answer in answers]
            floors["majority"] = {**self._score([guesses], self.metric), "answer": shown}
        if "swapped pictures" in self.task.floors:
            swapped = [answer for part in parts for answer in part["swapped"] or ()]
            floors["swapped pictures"] = {**self._score([swapped], self.metric), "items": len(swapped)}
        return floors

    def _generate(
        self, items: Sequence[Item], shots: Sequence[tuple[Item, ...]], advance: Advance
    ) -> tuple[list[Document], list[Answer]]:
        """Return the prompts and the model's answers."""
        if self.task.likelihood is not None:
            return choose_options(self.generator, self.task, items, shots, self._too_long, advance, self.style)
        prompts = [build_prompt(self.task, item, drawn, self.style) for item, drawn in zip(items, shots, strict=True)]
        try:
            answers = self.generator.generate(
                prompts, max_new_tokens=self.task.max_new_tokens, stop=self.task.stop, advance=advance
            )
        except ContextTooShort as error:
            raise self._too_long(error, items[error.index], shots[error.index]) from None
        return prompts, [answer if isinstance(answer, UserError) else self._cut(answer) for answer in answers]

    def _right_answers(
        self, prompts: Sequence[Document], items: Sequence[Item], shots: Sequence[tuple[Item, ...]]
    ) -> list[float | None]:
        """Return the log-likelihood of each item's answer as a shot would show it; None if a picture can't be read."""
        answers = [shown_answer(self.task, item) for item in items]
        if self.style.chat:
            answers = [answer.strip() for answer in answers]
        try:
            likelihoods = self.generator.log_likelihoods(prompts, answers)
        except ContextTooShort as error:
            raise self._too_long(error, items[error.index], shots[error.index]) from None
        return [None if each.error else each.total for each in likelihoods]

    def _too_long(self, error: ContextTooShort, item: Item, shots: tuple[Item, ...]) -> UserError:
        reserved = 0 if self.task.likelihood else self.task.max_new_tokens
        room = self.generator.max_context - reserved
        fits = [
            count
            for count in range(len(shots))
            if self.generator.count_tokens(query_prompt(self.task, item, shots[:count], self.style)) <= room
        ]
        advice = f"{max(fits)} shots fit: use at most that many" if fits else "not even the query alone fits"
        return UserError(
            f"task {self.task.name}: '{item.id}' with {len(shots)} shots needs {error.needed:,} tokens, and the model "
            f"takes {self.generator.max_context:,}: {advice}"
        )

    def _cut(self, answer: str) -> str:
        if self.task.after is not None:
            answer = answer.rpartition(self.task.after)[2]
        for pattern in self.task.postprocess:
            answer = re.split(pattern, answer, maxsplit=1)[0]
        return answer.strip()

    def _statistics(self, draws: Sequence[Sequence[Part]], metric: Metric) -> np.ndarray:
        """Return a metric's statistics (draws, items, s) of the first items; an error's are zeros."""
        stacked = []
        for draw in draws:
            items = self._items[: len(draw)]
            given = [answer["prediction"] or "" for answer in draw]
            rows = metric.measure(given, [self._references(item) for item in items], [item.options for item in items])
            rows[["error" in answer for answer in draw]] = 0.0
            stacked.append(rows)
        return np.stack(stacked)

    def _references(self, item: Item) -> tuple[str, ...]:
        """Return the right answers; where options are chosen by likelihood their words alone, as the prediction is."""
        return item.answers if self.task.likelihood is None else right_words(item.answers, item.options)

    def _counted(self, draws: Sequence[Sequence[Part]], metric: Metric) -> np.ndarray:
        """Return a metric's statistics (draws, k, s): one row per item, or per group of items that count as one."""
        statistics = self._statistics(draws, metric)
        if self.task.together is None:
            return statistics
        keys = [self._key(item) for item in self._items[: statistics.shape[1]]]
        return np.stack([lowest_of_groups(rows, keys) for rows in statistics])

    def _key(self, item: Item) -> str:
        """Return the key by which items are grouped: the item's id, or the field that it shares with others."""
        together = self.task.together
        return item.id if together is None else str(field(item, together, self.source.name))

    def _score(self, draws: Sequence[Sequence[Part]], metric: Metric) -> dict[str, Any]:
        """Return the mean score over draws and its interval over items."""
        statistics = self._counted(draws, metric)
        low, high = bootstrap_interval(metric, statistics, seed=self.settings.seed)
        return {"score": float(np.mean(metric.score(statistics))), "interval": [low, high]}


def _split(flat: Sequence[T], like: Sequence[Sequence[Any]]) -> list[Sequence[T]]:
    """Split a sequence into pieces with the lengths of `like`."""
    ends = np.cumsum([0, *(len(piece) for piece in like)])
    return [flat[start:end] for start, end in itertools.pairwise(ends)]


def _keep_pictures(answers: Sequence[Part], items: Sequence[Item], count: int) -> None:
    """Add the query's picture to the first answers, for reports."""
    for answer, item in list(zip(answers, items, strict=True))[: max(0, count)]:
        if item.images:
            answer["image"] = _picture_as_json(item.images[0])


def _parts_as_json(prompt: Document) -> list[dict[str, str]]:
    """Return a prompt's parts as JSON values, for display: `{"text": ...}` and `{"image": PNG in base64}`."""
    return [
        {"image": _picture_as_json(part)} if isinstance(part, Image) else {"text": part.text} for part in prompt.parts
    ]


def _picture_as_json(image: Image) -> str:
    return base64.b64encode(thumbnail(image, PICTURE_SIDE)).decode()


def _as_json(answer: Answer) -> Part:
    if isinstance(answer, UserError):
        return {"prediction": None, "error": str(answer)}
    return {"prediction": answer}


def _selection(task: Task) -> str:
    same = f", same {task.shots.same}" if task.shots.same else ""
    if task.shots.selection == "nearest":
        return f"nearest pictures, the nearest last{same}, never the query's picture"
    own = "one draw per query" if task.shots.sets is None else f"{task.shots.sets} sets"
    return f"random, {own}{same}, never the query's picture"


def _hash(*words: str) -> str:
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()
