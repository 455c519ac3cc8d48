"""Scenes are checked by reading the pictures: fake drawings are diamonds in a colour of their own for every noun."""

import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Pillow

from mm1.corpora import build_corpus
from mm1.corpora.scene import NOUNS, PLURALS
from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from tests.corpora.fake_sources import NOUN_RGB, put_openmoji

NUMBERS = ["no", "one", "two", "three", "four"]
SPLITS = {"train": 150, "train-questions": 80, "heldout": 80, "heldout-questions": 80}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Document]]:
    data = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(data))
        put_openmoji(data / "downloads")
        build_corpus("scenes", count=150, questions=80, heldout=80)
        return {split: list(open_split(f"scenes/{split}")) for split in SPLITS}


def blobs(mask: np.ndarray) -> Iterator[tuple[int, int, int, int]]:
    """Yield (left, top, right, bottom) of every connected region of a boolean picture."""
    left = {(int(x), int(y)) for y, x in np.argwhere(mask)}
    while left:
        region, border = set(), {left.pop()}
        while border:
            x, y = border.pop()
            region.add((x, y))
            near = {(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)} & left
            left -= near
            border |= near
        xs, ys = [x for x, _ in region], [y for _, y in region]
        yield min(xs), min(ys), max(xs) + 1, max(ys) + 1


def see(png: bytes) -> str:
    """Put a picture of diamonds into words, from its pixels alone."""
    pixels = np.asarray(Pillow.open(io.BytesIO(png))).astype(int)
    groups = []
    for noun, rgb in NOUN_RGB.items():
        boxes = list(blobs(np.all(abs(pixels - rgb) < 3, axis=-1)))
        if boxes:
            side = np.mean([right - left for left, _, right, _ in boxes]) / len(pixels)
            center = np.mean([[(box[0] + box[2]) / 2, (box[1] + box[3]) / 2] for box in boxes], axis=0)
            number = "a" if len(boxes) == 1 else NUMBERS[len(boxes)]
            words = f"{number} {'large' if side > 0.3 else 'small'} {noun if number == 'a' else PLURALS[noun]}"
            groups.append((words, center, boxes))
    if len(groups) == 1:
        return groups[0][0]
    (first, at, boxes), (second, other_at, other_boxes) = sorted(groups, key=lambda g: tuple(g[1]))
    middle = len(pixels) / 2
    split_at_middle = max(b[2] for b in boxes) <= middle <= min(b[0] for b in other_boxes)
    overlap_in_height = min(max(b[3] for b in boxes), max(b[3] for b in other_boxes)) > max(
        min(b[1] for b in boxes), min(b[1] for b in other_boxes)
    )
    if split_at_middle and overlap_in_height:
        return f"{first} on the left and {second} on the right"
    upper, lower = (first, second) if at[1] < other_at[1] else (second, first)
    return f"{upper} above {lower}"


def combinations(document: Document) -> set[object]:
    groups = document.meta["groups"]
    nouns = frozenset(group["noun"] for group in groups)
    return {(group["noun"], group["count"]) for group in groups} | ({nouns} if len(nouns) > 1 else set())


def test_sizes_of_the_splits(scenes: dict[str, list[Document]]) -> None:
    assert {split: len(documents) for split, documents in scenes.items()} == SPLITS
    assert {d.kind for d in scenes["train"] + scenes["heldout"]} == {"caption"}
    assert {d.kind for d in scenes["train-questions"] + scenes["heldout-questions"]} == {"interleaved"}


@pytest.mark.parametrize("split", ["train", "heldout"])
def test_caption_is_what_the_picture_shows(split: str, scenes: dict[str, list[Document]]) -> None:
    for document in scenes[split]:
        image, text = document.parts
        assert isinstance(image, Image)
        assert isinstance(text, Text)
        assert see(image.read()) == document.meta["caption"]
        assert text.text == " " + document.meta["caption"]


def test_held_out_combinations_are_never_trained_on(scenes: dict[str, list[Document]]) -> None:
    trained = set().union(*(combinations(d) for d in scenes["train"] + scenes["train-questions"]))
    held_out = scenes["heldout"] + scenes["heldout-questions"]
    for document in held_out:
        unseen = {frozenset(name.split(" and ")) if " and " in name else name for name in document.meta["unseen"]}
        assert unseen
        for group in document.meta["groups"]:
            name = f"{group['count']} {group['noun'] if group['count'] == 1 else PLURALS[group['noun']]}"
            if name in unseen:
                assert (group["noun"], group["count"]) not in trained
        assert not unseen & trained
    # Both sorts of combinations are there, and no thing is new as such.
    assert any(len(d.meta["groups"]) == 1 for d in held_out)
    assert any(" and " in name for d in held_out for name in d.meta["unseen"])
    assert {group["count"] for d in held_out for group in d.meta["groups"]} == {1, 2, 3, 4}


def answer(question: str, meta: Mapping[str, Any]) -> str:
    """Answer a question from the facts of the scene, independently of how it was made."""
    groups = meta["groups"]
    singular = {plural: noun for noun, plural in PLURALS.items()} | {noun: noun for noun in NOUNS}
    by_noun = {group["noun"]: group for group in groups}
    if match := re.fullmatch(r"How many (.+) are there\?", question):
        return NUMBERS[by_noun[singular[match[1]]]["count"]]
    if match := re.fullmatch(r"(?:Is|Are) the (.+) large or small\?", question):
        return by_noun[singular[match[1]]]["size"]
    if match := re.fullmatch(r"Is there a (.+)\?", question):
        return "yes" if match[1] in by_noun else "no"
    match = re.fullmatch(r"What is (.+)\?", question)
    assert match
    place = {"in the picture": ("alone", 0), "on the left": ("left-right", 0), "on the right": ("left-right", 1)}
    place |= {"at the top": ("top-bottom", 0), "at the bottom": ("top-bottom", 1)}
    layout, index = place[match[1]]
    assert layout == meta["layout"]
    group = groups[index]
    return group["noun"] if group["count"] == 1 else PLURALS[group["noun"]]


def test_answers_are_true(scenes: dict[str, list[Document]]) -> None:
    for document in scenes["heldout-questions"]:
        assert answer(document.meta["question"], document.meta) == document.meta["answer"]
    for document in scenes["train-questions"]:
        lines = document.text.rstrip("\n").lstrip(" ").split("\n")
        assert 1 <= len(lines) <= 4
        assert len(set(lines)) == len(lines)
        for line in lines:
            question, told = line.removeprefix("Question: ").split(" Short answer: ")
            assert answer(question, document.meta) == told


def test_presence_is_as_often_yes_as_no(scenes: dict[str, list[Document]]) -> None:
    text = "".join(d.text for d in scenes["train-questions"])
    yes, no = text.count("answer: yes"), text.count("answer: no")
    assert 0.3 < yes / (yes + no) < 0.7


def test_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(tmp_path))
    put_openmoji(tmp_path / "downloads")
    build_corpus("scenes", count=10, questions=1, heldout=1, size=150)
    for document in open_split("scenes/train"):
        png = document.images[0].read()
        assert Pillow.open(io.BytesIO(png)).size == (150, 150)
        assert see(png) == document.meta["caption"]
