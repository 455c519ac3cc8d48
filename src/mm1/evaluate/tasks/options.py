"""Options of multiple choice: read from a row, set in lines, and found again by what an answer names."""

from __future__ import annotations

import ast
import string
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from mm1.errors import UserError

AnswerIs = Literal["text", "letter", "index"]
_LETTERS = string.ascii_uppercase


def read_options(fields: Mapping[str, Any], names: str | list[str], where: str) -> tuple[str, ...]:
    """Return a row's options; none where the column is empty, as in an open question.

    Args:
        fields: Of the row.
        names: The column with the list, or a column for each option.
        where: The row, for messages.

    Raises:
        UserError: If a column is missing or holds no list.
    """
    for name in [names] if isinstance(names, str) else names:
        if name not in fields:
            raise UserError(f"{where} has no field '{name}' for its options: it has {', '.join(sorted(fields))}")
    if isinstance(names, list):
        return tuple(str(fields[name]) for name in names if fields[name] not in (None, "", "nan"))
    value = fields[names]
    if isinstance(value, str):  # MMMU writes the list as Python would
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            raise UserError(f"{where}: '{names}' is not a list of options: {value[:60]!r}") from None
    return tuple(str(option) for option in value or ())


def option_lines(options: Sequence[str]) -> str:
    """Return the options as lines `A. ...`, `B. ...`."""
    return "\n".join(f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False))


def right_answers(values: Sequence[Any], options: Sequence[str], answer_is: AnswerIs, where: str) -> tuple[str, ...]:
    """Return the letters and then the words of the options that answers name.

    Words alone where there are more options than letters.

    Raises:
        UserError: If an answer names none.
    """
    indices = [_index(value, options, answer_is) for value in values]
    for value, index in zip(values, indices, strict=True):
        if not 0 <= index < len(options):
            raise UserError(f"{where}: answer {value!r} is none of its {len(options)} options: check `answer_is`")
    letters = [_LETTERS[index] for index in indices] if len(options) <= len(_LETTERS) else []
    return (*letters, *(options[index] for index in indices))


def right_words(answers: Sequence[str], options: Sequence[str]) -> tuple[str, ...]:
    """Return the words among the answers of an item with options, as `right_answers` gives them.

    Args:
        answers: Letters and then words, or words alone.
        options: The item's.
    """
    return tuple(answers[len(answers) // 2 :] if len(options) <= len(_LETTERS) else answers)


def _index(answer: Any, options: Sequence[str], answer_is: AnswerIs) -> int:
    if answer_is == "index":
        return int(answer)
    if answer_is == "letter":
        return _LETTERS.find(str(answer).strip().upper()[:1] or "?")
    return list(options).index(str(answer)) if str(answer) in options else -1
