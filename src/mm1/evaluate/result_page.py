"""A page of a result's predictions: pictures, shots, the model's answers, right and wrong."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.tasks.item import Items
from mm1.files import write_text
from mm1.look.pictures import data_url, read_header, thumbnail

PREDICTIONS = 300
"""Largest number of predictions on the page: the first ones, which are a random sample."""
_EMBEDDED_AS_IS = 16_384
"""Pictures up to this many bytes are embedded unchanged, larger ones are scaled down."""
_SIDE = 192


def write_result_page(result: Mapping[str, Any], source: Items, pool: Items, file: Path) -> None:
    """Write the page, complete or not at all.

    Args:
        result: A result of `evaluate_model`.
        source: The items of the result.
        pool: The items that its shots come from.
        file: The page's path.
    """
    shown = result["predictions"][:PREDICTIONS]
    pictures: dict[str, str] = {}
    shots = _pictures(pool, {shot for prediction in shown for shot in prediction["shot_ids"]}, pictures)
    cards = []
    for prediction in shown:
        own = [_keep(image, pictures) for image in source[prediction["corpus_row"]].images]
        text_only = result["protocol"]["text_only_shots"] > 0
        before = [] if text_only else [name for shot in prediction["shot_ids"] for name in shots[shot]]
        parts = _parts(prediction["prompt"], [*before, *own])
        shots_end = _query_begins(parts, len(before), result["protocol"]["separator"]) if before else 0
        cards.append({**prediction, "before": parts[:shots_end], "query": parts[shots_end:]})
    metric = METRICS[result["metric"]]
    template = (resources.files("mm1.evaluate") / "result_page.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    text = environment.from_string(template).render(
        result=result, title=metric.title, binary=_is_binary(shown), cards=cards, pictures=pictures
    )
    write_text(file, text)


def _pictures(pool: Items, shots: set[str], pictures: dict[str, str]) -> dict[str, list[str]]:
    """Add the shots' pictures to the page, and return their names by the shot's id."""
    if not shots:
        return {}
    rows = {id: row for row, id in enumerate(pool.ids()) if id in shots}
    return {shot: [_keep(image, pictures) for image in pool[row].images] for shot, row in rows.items()}


def _keep(image: Image, pictures: dict[str, str]) -> str:
    """Add a picture to the page and return its name, which is a hash, so that each picture is there once."""
    address = _address(image)
    name = hashlib.blake2b(address.encode(), digest_size=8).hexdigest()
    pictures[name] = address
    return name


def _address(image: Image) -> str:
    try:
        data = image.read()
    except UserError:
        data = b""
    mime = read_header(data).mime
    if mime is None or len(data) > _EMBEDDED_AS_IS:
        return data_url(thumbnail(image, _SIDE))
    return data_url(data, mime)


def _parts(prompt: str, names: Iterable[str]) -> list[dict[str, str]]:
    """Return a prompt's texts and pictures in order."""
    left = iter(names)
    parts: list[dict[str, str]] = []
    for index, text in enumerate(re.split("<image>", prompt)):
        if index:
            name = next(left, None)
            parts.append({"picture": name} if name else {"text": "<image>"})
        if text:
            parts.append({"text": text})
    return parts


def _query_begins(parts: list[dict[str, str]], pictures_before: int, separator: str) -> int:
    """Return the index of the query's first part; split the text that also holds the end of the last shot."""
    seen = 0
    for index, part in enumerate(parts):
        if "picture" in part:
            seen += 1
        elif seen == pictures_before and separator in part["text"]:
            last, _, first = part["text"].rpartition(separator)
            parts[index : index + 1] = [{"text": last + separator}, *([{"text": first}] if first else [])]
            return index + 1
    return 0


def _is_binary(predictions: list[dict[str, Any]]) -> bool:
    return all(prediction["score"] in (0.0, 1.0) for prediction in predictions)
