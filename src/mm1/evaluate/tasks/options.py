"""Options of multiple choice: read them from a row, write them as lines, and find the ones that answers name."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from mm1.data.readers.layout import parse_json
from mm1.data.readers.values import as_text, index_of, is_missing, kind_of
from mm1.errors import UserError
from mm1.evaluate.tasks.task import AnswerIs

_LETTERS = string.ascii_uppercase
_LETTER = re.compile(r"\W*([A-Za-z])\W*|\W*([A-Za-z])[.):]\s.*", re.DOTALL)  # `B`, `(B)`, `B. a dog`; no word


def read_options(fields: Mapping[str, Any], names: str | list[str], where: str) -> tuple[str | None, ...]:
    """Return a row's options by their places, None where one is empty; none if the column is, as in an open question.

    Args:
        fields: The row's fields.
        names: The column with the list (or an object of A, B, ...), or one column per option.
        where: The row's name, for messages.

    Raises:
        UserError: If a column is missing or contains no list.
    """
    for name in [names] if isinstance(names, str) else names:
        if name not in fields:
            raise UserError(f"{where}: no field '{name}' for the options: name one of {', '.join(sorted(fields))}")
    if isinstance(names, list):
        return tuple(None if fields[name] == "nan" else _option(fields[name], where) for name in names)
    value = fields[names]
    if isinstance(value, str):
        value = _parsed(value) if value.strip() else None
    if is_missing(value):
        return ()
    if isinstance(value, Mapping) and [str(key).strip().upper() for key in value] == list(_LETTERS[: len(value)]):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        raise UserError(
            f"{where}: field '{names}' is no list of options and no object of A, B, ...: {str(fields[names])[:60]!r}"
        )
    return tuple(_option(option, where) for option in value)


def _parsed(text: str) -> object:
    """Return the list that a text holds, as JSON or, like MMMU, as Python writes it; else the text."""
    for parse in (parse_json, ast.literal_eval):
        with suppress(ValueError, SyntaxError, RecursionError, MemoryError):
            return parse(text)
    return text


def _option(value: Any, where: str) -> str | None:
    return None if is_missing(value) or value == "" else answer_words(value, where)


def answer_words(value: Any, where: str) -> str:
    """Return an answer or option as words: true and false are yes and no, as where conversations are made of them.

    Args:
        value: The value.
        where: The row's name, for messages.

    Raises:
        UserError: If it is a list or an object.
    """
    if isinstance(value, (list, Mapping)):
        raise UserError(
            f"{where}: an answer or option is {kind_of(value)}: name what holds its text, as `answers.text`"
        )
    text = as_text(value, number=True)
    return str(value) if text is None else text


def option_lines(options: Sequence[str]) -> str:
    """Return the options as lines `A. ...`, `B. ...`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))


def right_answers(
    values: Sequence[Any], given: Sequence[str | None], answer_is: AnswerIs, where: str
) -> tuple[str, ...]:
    """Return the letters and then the words of the options that answers name.

    If there are more options than letters, return only the words.

    Args:
        values: The answers.
        given: The options by their places; None: empty. Letters and numbers of answers count all places, the letters
            that are returned only those that are not empty.
        answer_is: How answers name an option.
        where: The row's name, for messages.

    Raises:
        UserError: If an answer names no option.
    """
    options = [option for option in given if option is not None]
    indices = []
    for value in values:
        place = _place(value, given, answer_is, where)
        if not 0 <= place < len(given) or given[place] is None:
            raise UserError(f"{where}: answer {value!r} names none of the {len(options)} options: check `answer_is`")
        indices.append(sum(option is not None for option in given[:place]))
    letters = [_LETTERS[index] for index in indices] if len(options) <= len(_LETTERS) else []
    return (*letters, *(options[index] for index in indices))


def right_words(answers: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """Return the words among the answers of an item with options, in the form that `right_answers` returns.

    Args:
        answers: Letters and then words, or only words.
        options: The item's options.
    """
    return tuple(answers[len(answers) // 2 :] if len(options) <= len(_LETTERS) else answers)


def _place(answer: Any, given: Sequence[str | None], answer_is: AnswerIs, where: str) -> int:
    """Return the place of the option that an answer names; -1 if there is none."""
    if answer_is == "text":
        words = answer_words(answer, where)
        return given.index(words) if words in given else -1
    if answer_is == "letter":
        named = _LETTER.fullmatch(str(answer))
        return _LETTERS.index((named[1] or named[2]).upper()) if named else -1
    number = index_of(answer)
    if number is None and isinstance(answer, str) and answer.strip().isdecimal():
        number = int(answer)
    return -1 if number is None else number
