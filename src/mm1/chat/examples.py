"""Few-shot examples for a chat: a folder of pictures with texts beside them, or a file in a format of the readers.

shots/a.png  shots/a.txt ("red")     an example without a question: it takes the question that is asked
shots.jsonl  {"image": "a.png", "question": "what color?", "answer": "red"}        questions
             {"messages": [...], "images": [...]}                                  messages
             {"conversations": [...], "image": "a.png"}                            llava
             {"image": "a.png", "caption": "a red square"}                         captions
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

from mm1.chat.conversation import Round
from mm1.data.readers import make_reader
from mm1.data.readers.opening import JSON_SUFFIXES
from mm1.data.readers.questions import ANSWER_COLUMNS, QUESTION_COLUMNS
from mm1.data.readers.reader import Notes, Reader
from mm1.data.readers.records import read_records
from mm1.data.readers.turns import TURN_KEYS
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.nearest import nearest_path
from mm1.processing.chat import turns


def read_examples(place: Path, count: int | None = None) -> list[Round]:
    """Return the examples of a folder or a file, in the order of their names or lines.

    Args:
        place: A folder of pictures with texts beside them, or a file in one of the formats above.
        count: How many to take; None: all.

    Raises:
        UserError: If there is no such place, one of its examples can't be read, or there are too few.
    """
    if not place.exists():
        raise UserError(f"{place}: no such folder or file of examples: check the path{nearest_path(place)}")
    reader = _reader_of(place)
    notes = Notes()
    shards = reader.shards([str(place)])
    if alone := shards[0].unread.get("caption file without a picture"):
        raise UserError(
            f"{place}: {alone['examples'][0]} has no picture of its name beside it: add it, or remove the text"
        )
    documents = (document for shard in shards for document in reader.read(shard, notes))
    rounds = [one for document in islice(documents, count) for one in _rounds(document)]
    if notes.skipped.counts:
        reason = next(iter(notes.skipped.counts))
        raise UserError(
            f"{place}: an example can't be read: {notes.skipped.examples[reason][0]}: {reason}: correct it, or take it "
            "out"
        )
    if not rounds or (count is not None and notes.documents < count):
        raise UserError(
            f"{place}: it has fewer examples than {count or 1} ({notes.documents}): ask for fewer, or add some"
        )
    return rounds


def hash_examples(rounds: Sequence[Round]) -> str:
    """Return a hash of examples, their pictures included."""
    digest = hashlib.sha256()
    for one in rounds:
        for picture in one.pictures:
            digest.update(hashlib.sha256(picture.read()).digest())
        digest.update(json.dumps([one.question, one.answer]).encode())
    return digest.hexdigest()


def _reader_of(place: Path) -> Reader:
    if place.is_dir():
        return make_reader("image-folder")
    name = place.name.lower()
    if not name.endswith((".parquet", *JSON_SUFFIXES)):
        raise UserError(
            f"{place}: examples are a folder of pictures with .txt files beside them, or a .jsonl, .json or .parquet "
            "file: name one of these"
        )
    first = next((record for _, record in read_records(str(place), place.name, [], Notes())), {})
    if "conversations" in first:
        return make_reader("llava")
    if any(key in first for key in TURN_KEYS):
        return make_reader("messages")
    if any(key in first for key in QUESTION_COLUMNS) and any(key in first for key in ANSWER_COLUMNS):
        return make_reader("questions")
    return make_reader("captions")


def _rounds(document: Document) -> list[Round]:
    """Return what a document shows: a caption without a question, or the rounds of a conversation."""
    if document.kind != "chat":
        return [Round(document.images, "", document.text.strip())]
    rounds: list[Round] = []
    pictures: list[Image] = []
    question: list[str] = []
    for role, numbers in turns(document):
        parts = [document.parts[number] for number in numbers]
        texts = [part.text.strip() for part in parts if isinstance(part, Text)]
        if role == "assistant":
            rounds.append(Round(tuple(pictures), "\n".join(question), " ".join(texts)))
            pictures, question = [], []
        else:  # what a system turn says comes before the first question
            pictures += [part for part in parts if isinstance(part, Image)]
            question += texts
    return rounds
