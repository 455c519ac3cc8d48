"""Options of multiple choice: read them from a row, write them as lines, and find the ones that answers name."""

from __future__ import annotations

import ast
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mm1.errors import UserError

AnswerIs = Literal["text", "letter", "index"]
_LETTERS = string.ascii_uppercase


def read_options(fields: Mapping[str, Any], names: str | list[str], where: str) -> tuple[str, ...]:
    """Return a row's options, or none if the column is empty, as in an open question.

    Args:
        fields: The row's fields.
        names: The column with the list, or one column per option.
        where: The row's name, for messages.

    Raises:
        UserError: If a column is missing or contains no list.
    """
    for name in [names] if isinstance(names, str) else names:
        if name not in fields:
            raise UserError(f"{where}: no field '{name}' for the options: name one of {', '.join(sorted(fields))}")
    if isinstance(names, list):
        return tuple(str(fields[name]) for name in names if fields[name] not in (None, "", "nan"))
    value = fields[names]
    if isinstance(value, str):  # MMMU writes the list in Python's syntax
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"{where}: field '{names}' is not a list of options: {value[:60]!r}") from None
    return tuple(str(option) for option in value or ())


def option_lines(options: Sequence[str]) -> str:
    """Return the options as lines `A. ...`, `B. ...`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))


def right_answers(values: Sequence[Any], options: Sequence[str], answer_is: AnswerIs, where: str) -> tuple[str, ...]:
    """Return the letters and then the words of the options that answers name.

    If there are more options than letters, return only the words.

    Raises:
        UserError: If an answer names no option.
    """
    indices = [_index(value, options, answer_is) for value in values]
    for value, index in zip(values, indices, strict=True):
        if not 0 <= index < len(options):
            raise UserError(f"{where}: answer {value!r} names none of the {len(options)} options: check `answer_is`")
    letters = [_LETTERS[index] for index in indices] if len(options) <= len(_LETTERS) else []
    return (*letters, *(options[index] for index in indices))


def right_words(answers: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """Return the words among the answers of an item with options, in the form that `right_answers` returns.

    Args:
        answers: Letters and then words, or only words.
        options: The item's options.
    """
    return tuple(answers[len(answers) // 2 :] if len(options) <= len(_LETTERS) else answers)


def _index(answer: Any, options: Sequence[str], answer_is: AnswerIs) -> int:
    if answer_is == "index":
        return int(answer)
    if answer_is == "letter":
        return _LETTERS.find(str(answer).strip().upper()[:1] or "?")
    return list(options).index(str(answer)) if str(answer) in options else -1
