"""Questions on pictures and their answers, one a row of parquet or JSON Lines: short conversations of one round.

The columns are those that VQAv2, GQA, DocVQA, ChartQA and their like have in common; captions are answers to a question
that is the same throughout (`suffix` alone).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, ClassVar

from mm1.data.readers.captions import IMAGE_COLUMNS
from mm1.data.readers.conversation import Mark, Turn, conversation
from mm1.data.readers.lines import JSON_SUFFIXES
from mm1.data.readers.parquet import check_columns
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.records import read_records
from mm1.document import Document

QUESTION_COLUMNS = ("question", "query")
ANSWER_COLUMNS = ("multiple_choice_answer", "answer", "answers", "label", "caption")


@dataclass(frozen=True)
class Questions(Reader):
    """Questions on pictures.

    Attributes:
        image: Column of the pictures; default: the first there is of `captions`' columns.
        question: Column of the questions; default: `question` or `query`; without either the suffix is the question.
        answer: Column of the answers; default: the first there is of `multiple_choice_answer`, `answer`, `answers`,
            `label`, `caption`. Of several answers the most frequent is taken, the first of equals; of dicts their
            `answer`.
        options: Column of the options; the answer is then the number (from 0) or the words of one, and becomes its
            letter.
        suffix: Put behind every question, on a line of its own.
        pictures: Folder that paths of pictures are told from; default: the folder of the sources.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".parquet", *JSON_SUFFIXES)
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    image: str = ""
    question: str = ""
    answer: str = ""
    options: str = ""
    suffix: str = ""
    pictures: str = ""

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield a chat document for every row."""
        folder = PictureFolder(self.pictures or shard.root)
        needed = [self.image or "|".join(IMAGE_COLUMNS), self.answer or "|".join(ANSWER_COLUMNS)]
        for file in shard.files:
            for where, row in read_records(file, shard.name(file), needed, notes):
                document = self.chat_of_row(row, where, folder, notes)
                if document is not None:
                    yield document

    def chat_of_row(self, row: Mapping[str, Any], where: str, folder: PictureFolder, notes: Notes) -> Document | None:
        """Return the document of a row, or count why there is none and return None.

        Raises:
            UserError: If a column that was named is missing.
        """
        named = [name for name in (self.image, self.question, self.answer, self.options) if name]
        check_columns(where, list(row), named)
        image = self.image or next((name for name in IMAGE_COLUMNS if name in row), None)
        question = self.question or next((name for name in QUESTION_COLUMNS if name in row), None)
        answer = _answer(row, self.answer or next((name for name in ANSWER_COLUMNS if name in row), ""))
        asked = str(row[question]).strip() if question is not None else ""
        if self.options:
            choices = [str(option) for option in row[self.options] or ()]
            number = _number(answer, choices)
            if number is None:
                notes.skipped.add("question whose answer is none of its options", where)
                return None
            lines = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, choices, strict=False)]
            asked, answer = "\n".join([asked, *lines]), ascii_uppercase[number]
        if not asked and not self.suffix:
            notes.skipped.add("row without a question", where)
            return None
        asked = f"{asked}\n{self.suffix}".strip() if self.suffix else asked
        pictures = [row[image]] if image is not None and row[image] is not None else []
        turns: list[Turn] = [("user", [*(Mark() for _ in pictures), asked]), ("assistant", [str(answer or "")])]
        used = (image, question, self.options)
        own = {name: value for name, value in row.items() if name not in used and value is not None}
        return conversation(turns, pictures, where, folder, notes, own)


def _answer(row: Mapping[str, Any], column: str) -> Any:
    value = row.get(column)
    if not isinstance(value, list):
        return value
    values = [entry.get("answer") if isinstance(entry, Mapping) else entry for entry in value]
    return Counter(str(entry) for entry in values if entry is not None).most_common(1)[0][0] if values else None


def _number(answer: Any, options: list[str]) -> int | None:
    """Return which option an answer is: a number from 0, or its words."""
    number = int(answer) if str(answer).isdigit() and str(answer) not in options else None
    if number is None:
        number = options.index(str(answer)) if str(answer) in options else None
    return number if number is not None and number < min(len(options), len(ascii_uppercase)) else None
