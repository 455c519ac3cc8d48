"""Questions on pictures and their answers, one a row of parquet or JSON Lines: short conversations of one round.

The columns are those that VQAv2, GQA, DocVQA, ChartQA and their like have in common; captions are answers to a question
that is the same throughout (`suffix` alone).
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any, ClassVar

from mm1.data.readers.captions import IMAGE_COLUMNS
from mm1.data.readers.conversation import Turn, conversation, marked
from mm1.data.readers.layout import parse_json
from mm1.data.readers.opening import JSON_SUFFIXES
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.records import read_records
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.turns import pictures_of
from mm1.data.readers.values import LeftOutError, as_text, index_of, is_given, kind_of, plain_python, text_of
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
        options: Column of the options, a list, an object, or a text that holds one; the answer is then the words, the
            number (from 0), the letter or the key of one, and becomes its letter.
        suffix: Put behind every question, on a line of its own.
        pictures: The folder of pictures, where they don't lie beside the file that names them.
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
        needed = [self.image or "|".join(IMAGE_COLUMNS), self.answer or "|".join(ANSWER_COLUMNS)]
        needed += [name for name in (self.question, self.options) if name]
        for file in shard.files:
            rows = read_records(file, shard.name(file), needed, notes)
            pictures = PictureFolder.beside(file, shard.root, self.pictures)
            yield from documents_of(rows, self.chat_of_row, notes, pictures)

    def chat_of_row(self, row: Mapping[str, Any], place: Place) -> Document:
        """Return the document of a row.

        Raises:
            LeftOutError: If it has no question or no answer.
        """
        for named in (self.image, self.question, self.answer, self.options):
            if named and named not in row:
                raise LeftOutError(f"record without '{named}'", f"it has {', '.join(map(str, row))[:200]}")
        image = self.image or next((name for name in IMAGE_COLUMNS if name in row), None)
        question = self.question or next((name for name in QUESTION_COLUMNS if name in row), None)
        answer = self.answer or next((name for name in ANSWER_COLUMNS if name in row), None)
        asked = text_of(row[question], "question") if question is not None else ""
        if not asked and not self.suffix:
            raise LeftOutError("record without a question")
        if answer is None:
            raise LeftOutError("record without an answer")
        if self.options:
            asked, answered = _with_options(asked, *_options(row[self.options]), row[answer])
        else:
            answered = _answer(row[answer])
        asked = f"{asked}\n{self.suffix}".strip("\n") if self.suffix else asked
        turns: list[Turn] = [("user", marked(asked)), ("assistant", [answered])]
        used = (image, question, self.options)
        own = {name: value for name, value in row.items() if name not in used and value is not None}
        return conversation(turns, pictures_of(row[image]) if image is not None else [], place, own)


def _answer(value: object) -> str:
    """Return the answer that a column holds: of several the most frequent, of an object its `answer`.

    Raises:
        LeftOutError: If none of them is a text or a number.
    """
    value = plain_python(value)
    if not isinstance(value, (list, tuple)) or not value:
        return text_of(_own_answer(value), "answer", number=True)
    texts = [text for one in value if (text := as_text(_own_answer(one), number=True)) and text.strip()]
    if not texts:
        return text_of(_own_answer(value[0]), "answer", number=True)  # which says why not
    return Counter(texts).most_common(1)[0][0]


def _own_answer(value: object) -> object:
    return value["answer"] if isinstance(value, Mapping) and "answer" in value else value


def _options(value: object) -> tuple[dict[str, str], bool]:
    """Return options by what they are called: a letter, or their key; those that are null are none.

    Also returns whether a number can only count them: they are a list of texts.

    Raises:
        LeftOutError: If these are no options.
    """
    if isinstance(value, str):
        value = _parsed(value)
    value = plain_python(value)
    if isinstance(value, (list, tuple)):
        named: dict[Any, Any] = dict(zip(ascii_uppercase, value, strict=False))
    elif isinstance(value, Mapping):
        named = {str(key): option for key, option in value.items()}
    else:
        raise LeftOutError(f"options that are {kind_of(value)}")
    if not value:
        raise LeftOutError("question without options")
    if len(value) > len(ascii_uppercase):
        raise LeftOutError(f"question with more than {len(ascii_uppercase)} options")
    given = {name: one for name, one in named.items() if is_given(one)}
    are_texts = not isinstance(value, Mapping) and all(isinstance(one, str) for one in given.values())
    return {name: text_of(one, "option", number=True).strip() for name, one in given.items()}, are_texts


def _parsed(text: str) -> object:
    """Return the list or object that a text holds, as Python or JSON writes it."""
    for parse in (parse_json, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, (list, tuple, dict)):
            return value
    return text


def _with_options(asked: str, options: Mapping[str, str], are_texts: bool, value: object) -> tuple[str, str]:
    """Return a question with its options below, and the letter of the answer.

    Args:
        asked: The question.
        options: See `_options`.
        are_texts: Likewise. A number is then the place of an option, even if another one's text is this number.
        value: What the record holds of the answer.

    Raises:
        LeftOutError: If the answer is none of them.
    """
    names, texts = list(options), list(options.values())
    answer = _answer(value).strip()
    number = index_of(value)
    counted = are_texts and number is not None and _letter(number) in names
    if answer in texts and not counted:
        which = texts.index(answer)
    elif answer in names:
        which = names.index(answer)
    else:
        letter = _letter(int(answer) if number is None and answer.isascii() and answer.isdigit() else number)
        if letter not in names:
            raise LeftOutError("question whose answer is none of its options", answer[:50])
        which = names.index(letter)
    lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, texts, strict=False)]
    return "\n".join([asked, *lines]), ascii_uppercase[which]


def _letter(number: int | None) -> str:
    return ascii_uppercase[number] if number is not None and 0 <= number < len(ascii_uppercase) else ""
