"""Scoring a model on tasks at several numbers of shots, one result file for each pair.

A result file holds the whole protocol and every prediction, so that a score can be explained and computed
again. One that is already there and was made by the same protocol, model and data is kept.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from mm1.document import Document, Image
from mm1.errors import UserError
from mm1.evaluate.bootstrap import bootstrap_interval
from mm1.evaluate.floors import majority_answers, swap_pictures
from mm1.evaluate.generation import Answer, ContextTooShort, Generator
from mm1.evaluate.items import Item, Items
from mm1.evaluate.metrics import METRICS, Metric
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.shots import ShotPool
from mm1.evaluate.task import ItemSource, Task
from mm1.processing.images import ImageError, decode_image
from mm1.progress import progress_bar

FORMAT = 1
_EXAMPLE_SIDE = 256

Result = dict[str, Any]
Advance = Callable[[int], None]


def evaluate(
    generator: Generator,
    tasks: Sequence[Task],
    *,
    shots: Sequence[int] = (0, 4, 8),
    limit: int | None = None,
    seed: int = 0,
    out_dir: Path,
    model_name: str,
    model_hash: str,
) -> list[Result]:
    """Score a model.

    Args:
        generator: The model.
        tasks: What to score it on.
        shots: Numbers of shots.
        limit: Items per task, at most: the first of an order that the seed gives.
        seed: Of the choice of items, shots, swapped pictures and resamples.
        out_dir: Where `{task}.{k}-shot.json` are written.
        model_name: For people to read.
        model_hash: A result of another model is not kept.

    Returns:
        The content of the result files, task by task.

    Raises:
        UserError: If a task's data is missing or not as the task says, a pool is smaller than the shots asked
            for, or the prompts don't fit the model's context.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    results = []
    with progress_bar() as bar:
        for task in tasks:
            scorer = _Scorer(generator, task, limit, seed, {"model": model_name, "model_hash": model_hash})
            for count in shots:
                file = out_dir / f"{task.name}.{count}-shot.json"
                result = _kept(file, scorer.protocol(count))
                row = bar.add_task(f"{task.name}, {count}-shot", total=scorer.work, note="")
                if result is None:
                    result = scorer.score(count, lambda done, row=row: bar.advance(row, done))  # type: ignore[misc]
                    _write(file, result)
                    note = summary(result)
                else:
                    bar.update(row, completed=scorer.work)
                    note = f"{summary(result)} (kept)"
                bar.update(row, note=note)
                results.append(result)
    return results


def summary(result: Result) -> str:
    """Return a score in a few words, such as `accuracy 0.812 (0.804 to 0.820)`."""
    low, high = result["interval"]
    return f"{METRICS[result['metric']].title} {result['score']:.3f} ({low:.3f} to {high:.3f})"


class _Scorer:
    """One task, with its items read and its pool ready."""

    def __init__(self, generator: Generator, task: Task, limit: int | None, seed: int, model: dict[str, str]) -> None:
        self.generator, self.task, self.limit, self.seed, self.model = generator, task, limit, seed, model
        self.metric = METRICS[task.metric]
        source = Items(task.data)
        answers = task.data.answers
        self.pool = Items(ItemSource(corpus=task.shots.corpus, answers=answers)) if task.shots.corpus else source
        self.items = _choose(source, limit, seed)
        if not self.items:
            raise UserError(f"task {task.name}: {source.name} has no items: build the corpus anew")
        self.draws = ShotPool(task, self.pool, seed)
        self.data_hash = _hash(source.data_hash, self.pool.data_hash)

    @cached_property
    def _majority(self) -> list[str]:
        return majority_answers(self.task, self.items, self.pool)

    @property
    def work(self) -> int:
        """Prompts to answer, those of the floors included."""
        return len(self.items) * (1 + ("swapped pictures" in self.task.floors))

    def protocol(self, count: int) -> dict[str, Any]:
        """Return everything that the result depends on."""
        task = self.task
        return {
            "format": FORMAT,
            "prompt": task.prompt,
            "answer": task.answer,
            "separator": task.separator,
            "stop": task.stop,
            "max_new_tokens": task.max_new_tokens,
            "decoding": "greedy",
            "postprocess": task.postprocess,
            "metric": task.metric,
            "metric_source": self.metric.source,
            "also": task.also,
            "items": task.data.corpus,
            "answers": task.data.answers,
            "limit": self.limit,
            "shots": count,
            "shot_source": self.pool.name,
            "shot_selection": _selection(task),
            "floors": list(task.floors),
            "seed": self.seed,
            "data_hash": self.data_hash,
            **self.model,
        }

    def score(self, count: int, advance: Advance) -> Result:
        """Generate, score, and compute the floors."""
        shots = [self.draws.draw(item, count) for item in self.items]
        prompts = [build_prompt(self.task, item, s) for item, s in zip(self.items, shots, strict=True)]
        answers = self._generate(prompts, shots, advance)
        statistics = self._statistics(answers, self.metric)
        each = [float(self.metric.score(statistics[i : i + 1])) for i in range(len(statistics))]
        predictions = [
            {
                "id": item.id,
                "corpus_row": item.row,
                "prompt": as_text(prompt),
                "shot_ids": [shot.id for shot in drawn],
                "prediction": None if isinstance(answer, UserError) else answer,
                **({"error": str(answer)} if isinstance(answer, UserError) else {}),
                "answers": list(item.answers),
                "score": score,
            }
            for item, prompt, drawn, answer, score in zip(self.items, prompts, shots, answers, each, strict=True)
        ]
        return {
            "task": self.task.name,
            "shots": count,
            "metric": self.task.metric,
            **self._score(answers, self.metric),
            "items": len(self.items),
            "errors": sum(isinstance(answer, UserError) for answer in answers),
            "seed": self.seed,
            "also": {name: self._score(answers, METRICS[name]) for name in self.task.also},
            "floors": self._floors(shots, advance),
            "protocol": self.protocol(count),
            "example_prompt": _example(prompts[0]),
            "predictions": predictions,
        }

    def _floors(self, shots: list[tuple[Item, ...]], advance: Advance) -> dict[str, Any]:
        floors: dict[str, Any] = {}
        if "majority" in self.task.floors:
            answers = self._majority
            shown = answers[0] if self.task.shots.same is None else f"one per {self.task.shots.same}"
            floors["majority"] = {**self._score(answers, self.metric), "answer": shown}
        if "swapped pictures" in self.task.floors:
            swapped = swap_pictures(self.items, self.seed)
            prompts = [build_prompt(self.task, item, s) for item, s in zip(swapped, shots, strict=True)]
            answers_blind = self._generate(prompts, shots, advance)
            floors["swapped pictures"] = self._score(answers_blind, self.metric)
        return floors

    def _generate(self, prompts: list[Document], shots: list[tuple[Item, ...]], advance: Advance) -> list[Answer]:
        try:
            answers = self.generator.generate(
                prompts, max_new_tokens=self.task.max_new_tokens, stop=self.task.stop, advance=advance
            )
        except ContextTooShort as error:
            raise self._too_long(error, self.items[error.index], shots[error.index]) from None
        return [answer if isinstance(answer, UserError) else self._cut(answer) for answer in answers]

    def _too_long(self, error: ContextTooShort, item: Item, shots: tuple[Item, ...]) -> UserError:
        room = self.generator.max_context - self.task.max_new_tokens
        fits = [
            count
            for count in range(len(shots))
            if self.generator.count_tokens(build_prompt(self.task, item, shots[:count])) <= room
        ]
        advice = f"{max(fits)} shots fit" if fits else "not even the query alone fits"
        return UserError(
            f"task {self.task.name}: {len(shots)} shots need {error.needed:,} tokens for '{item.id}' and the model "
            f"takes {self.generator.max_context:,}: {advice}"
        )

    def _cut(self, answer: str) -> str:
        for pattern in self.task.postprocess:
            answer = re.split(pattern, answer, maxsplit=1)[0]
        return answer.strip()

    def _statistics(self, answers: Sequence[Answer], metric: Metric) -> np.ndarray:
        """Return a metric's statistics; an error's are zeros."""
        texts = ["" if isinstance(answer, UserError) else answer for answer in answers]
        statistics = metric.statistics(texts, [item.answers for item in self.items])
        statistics[[isinstance(answer, UserError) for answer in answers]] = 0.0
        return statistics

    def _score(self, answers: Sequence[Answer], metric: Metric) -> dict[str, Any]:
        statistics = self._statistics(answers, metric)
        interval = bootstrap_interval(metric, statistics, seed=self.seed)
        return {"score": float(metric.score(statistics)), "interval": list(interval)}


def _choose(source: Items, limit: int | None, seed: int) -> list[Item]:
    items = list(source)
    if limit is None or limit >= len(items):
        return items
    chosen = sorted(items, key=lambda item: _hash(str(seed), item.id))[:limit]
    return sorted(chosen, key=lambda item: item.row)


def _selection(task: Task) -> str:
    own = "one draw per query" if task.shots.sets is None else f"{task.shots.sets} sets"
    same = f", same {task.shots.same}" if task.shots.same else ""
    return f"random, {own}{same}, never the query's picture"


def _hash(*words: str) -> str:
    return hashlib.blake2b("\0".join(words).encode(), digest_size=16).hexdigest()


def _example(prompt: Document) -> list[dict[str, str]]:
    """Return a prompt's parts for showing: text, and pictures as PNG of at most 256 pixels a side."""
    return [{"image": _png(part)} if isinstance(part, Image) else {"text": part.text} for part in prompt.parts]


def _png(image: Image) -> str:
    try:
        picture = decode_image(image.read(), _EXAMPLE_SIDE)
    except (ImageError, UserError):
        picture = PILImage.new("RGB", (8, 8), "grey")
    picture.thumbnail((_EXAMPLE_SIDE, _EXAMPLE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def _kept(file: Path, protocol: dict[str, Any]) -> Result | None:
    """Return the result in `file` if it was made by this very protocol."""
    try:
        result = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return result if isinstance(result, dict) and result.get("protocol") == protocol else None


def _write(file: Path, result: Result) -> None:
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    partial.write_text(json.dumps(result, ensure_ascii=False, indent=1) + "\n")
    partial.rename(file)
