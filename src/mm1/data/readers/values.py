"""What the values of a record are: which are text, and what stands there instead.

A string is text, and so are bytes that are UTF-8 (binary columns hold texts too). A number is text only where an answer
may be one, and then 0 and false are answers. Nothing else is ever turned into words: it is named by what it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any, cast

MAX_DEPTH = 50
"""Levels of lists and objects that are kept of meta."""
_MAX_PLAIN_DEPTH = 10
_PLAIN_TYPES = {int, bool, type(None)}

_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
_PYTHON = {str, bytes, int, float, bool, list, tuple, dict, type(None)}
_SURROGATES = re.compile("[\ud800-\udfff]")
_NO_FIRST = ("", "\ufeff")  # characters that a text may have to be rid of


class LeftOutError(Exception):
    """A record is left out.

    Args:
        reason: Why. Records are counted by it, so it names nothing of this one record.
        detail: What is to be seen with the record's place, such as a path.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands for a value that the file holds and Python can't, such as a date beyond the year 9999.

    Attributes:
        what: What it is, as in "text that is not UTF-8".
    """

    what: str


def text_of(value: object, what: str, *, number: bool = False) -> str:
    """Return a text that says something.

    Args:
        value: Of a record.
        what: What it is to be, such as `caption`.
        number: Whether numbers, true and false are texts here: of answers.

    Raises:
        LeftOutError: If it is none; the reason says what it is.
    """
    if type(value) is str and value[:1] not in _NO_FIRST and not value.isspace():
        return value
    text = as_text(value, number=number)
    if text is None:
        raise LeftOutError(f"{what} that is {kind_of(value)}")
    if not text.strip():
        raise LeftOutError(f"{what} that is empty")
    return text


def says_something(text: str) -> bool:
    """Whether there is more in a text than space."""
    return text != "" and not text.isspace()


def as_text(value: object, *, number: bool = False) -> str | None:
    """Return a value as text, which may be empty; None if it is none (see `text_of`)."""
    if type(value) is str:
        return value.removeprefix("\ufeff")
    value = plain_python(value)
    if isinstance(value, bytes):
        try:
            value = value.decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, str):
        return value.removeprefix("\ufeff")
    if not number or is_missing(value):
        return None
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        whole = value.is_integer() and abs(value) < 1e15  # tables make floats of whole numbers
        return None if math.isinf(value) else str(int(value) if whole else value)
    return str(value) if isinstance(value, int) or (isinstance(value, Decimal) and value.is_finite()) else None


def kind_of(value: object) -> str:
    """Return what a value is, as a reason says it: `null`, `a list`, `an object`, `NaN`, ..."""
    value = plain_python(value)
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case float() | Decimal() if is_missing(value):
            return "NaN"
        case float() if math.isinf(value):
            return "infinite"
        case int() | float() | Decimal():
            return "a number"
        case str():
            return "a text"
        case list() | tuple():
            return "a list" if value else "an empty list"
        case Mapping():
            return "an object" if value else "an empty object"
        case bytes():
            return "bytes and not UTF-8" if as_text(value) is None else "bytes"
        case date() | time() | timedelta():
            return "a date or time"
        case Unreadable():
            return f"a {value.what}"
    return f"of the type {type(value).__name__}"


def is_missing(value: object) -> bool:
    """Return whether a value stands for none: null, or the NaN that tables have in its place."""
    return (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or (isinstance(value, Decimal) and value.is_nan())
    )


def is_given(value: object) -> bool:
    """Return whether a key beside others says something: neither null, NaN, nor empty, nor an object of nulls."""
    if value is None:  # most keys that are asked for aren't there
        return False
    value = plain_python(value)
    if isinstance(value, (str, bytes, list, tuple)):
        return len(value) > 0
    if isinstance(value, Mapping):
        return not all(map(is_missing, value.values()))
    return not is_missing(value)


def is_picture(value: object) -> bool:
    """Return whether a place for a picture holds one, be it damaged: one of zero bytes is lost, and not none."""
    return isinstance(value, bytes) or is_given(value)


def index_of(value: object) -> int | None:
    """Return a whole number, also one that a table made a float; None if it is none."""
    value = plain_python(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def trimmed(text: str) -> str:
    """Return a text without blank lines at its beginning and space at its end.

    Where several lines follow, the first keeps an indentation of two spaces or more, or of tabs: it is code.
    """
    if not text[:1].isspace():
        return text.rstrip()
    text = _BLANK_LINES.sub("", text.rstrip())
    return text if "\n" in text and text.startswith(("  ", "\t")) else text.strip()


def plain_python(value: Any) -> Any:
    """Return the Python value of numpy's arrays and scalars; other values as they are."""
    return value if type(value) in _PYTHON or not hasattr(value, "tolist") else value.tolist()


def replace_surrogates(text: str) -> tuple[str, int]:
    """Return a text with lone surrogates, which UTF-8 can't hold, as U+FFFD, and how many there were."""
    try:
        text.encode()  # many times as fast as to look for them
    except UnicodeEncodeError:
        return _SURROGATES.subn("\ufffd", text)
    return text, 0


def is_plain(value: object, depth: int = 0) -> bool:
    """Whether an object or a list is one that JSON and Arrow have for certain; False if it takes a closer look."""
    texts: list[Any]
    items: Iterable[object]
    if type(value) is dict:
        texts, items = [*value], value.values()
    elif type(value) is list:
        texts, items = [], value
    else:
        return False
    for item in items:
        kind = type(item)
        if kind is str:
            texts.append(item)
        elif kind in _PLAIN_TYPES or (kind is float and math.isfinite(cast("float", item))):
            continue
        elif depth == _MAX_PLAIN_DEPTH or not is_plain(item, depth + 1):
            return False
    try:
        return is_plain_text("".join(texts))
    except TypeError:  # a key that is no text
        return False


def is_plain_text(text: str) -> bool:
    """Whether a text has neither NULs nor lone surrogates."""
    if "\0" in text:
        return False
    if text.isascii():  # known without a look at the characters
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def plain_meta(meta: Mapping[Any, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return meta as JSON values that Arrow can store, and what could not be kept: those are null.

    Bytes are told by their number; dates, decimals, UUIDs and the like become text.
    """
    kept: dict[str, Any] = {}
    lost: list[str] = []
    for key, value in meta.items():
        try:
            kept[_key(key)] = _plain(value)
        except Exception as error:  # metadata never costs a record
            kept[_key(key)] = None
            lost.append(f"'{_key(key)[:100]}' holds a {error if isinstance(error, _NoJSONError) else 'value'}")
    return kept, lost


class _NoJSONError(Exception):
    pass


def _key(key: object) -> str:
    return replace_surrogates(key if isinstance(key, str) else str(plain_python(key)))[0]


def _plain(value: Any, depth: int = 0) -> Any:
    if type(value) is str:
        return replace_surrogates(value)[0]
    value = plain_python(value)
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, str):
        return replace_surrogates(value)[0]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Unreadable):
        raise _NoJSONError(value.what)
    if isinstance(value, (Mapping, list, tuple)):
        if depth == MAX_DEPTH:
            raise _NoJSONError(f"value of more than {MAX_DEPTH} levels")
        if isinstance(value, Mapping):
            return {_key(key): _plain(item, depth + 1) for key, item in value.items()}
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    return _plain(str(value), depth)
