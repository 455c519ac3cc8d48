r"""What a line says: its text, and the files of pictures that were typed, pasted or dropped into it.

    what is in '/tmp/my cat.png'?        quoted, as GNOME's terminal drops files
    /tmp/my\ cat.png what is this        escaped, as macOS drops files
    file:///tmp/my%20cat.png             as browsers and file managers copy files
    ./my cat.png ~/dog.JPG compare       unquoted spaces, several pictures

A path is taken out of the text. What names no file stays text, unless it can only be meant as a picture's path: then it
is an error, since a model that doesn't see the picture makes an answer up.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.errors import UserError

_ENDS = "|".join(re.escape(suffix) for suffix in PICTURE_SUFFIXES)
_SUFFIX = re.compile(rf"(?:{_ENDS})(?!\w|\.\w)", re.IGNORECASE)
# ASCII white space alone: names of macOS' screenshots hold a narrow no-break space.
_WORD = re.compile(r"(?:\\.|[^ \t\r\n\\]|\\)+")
_QUOTED = re.compile(r"'((?:[^'\n]|'\\'')+)'(?!\w)|\"((?:[^\"\\\n]|\\.)+)\"(?!\w)")
_PATH = re.compile(r"~?/|\.{1,2}/|~\w+/")
_ADDRESS = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)
_STARTS = re.compile(r"(?:^|(?<=[ \t\r\n(\[]))(?=[^ \t\r\n])")


@dataclass(frozen=True)
class Line:
    """A line without its paths.

    Attributes:
        text: What is left of it.
        pictures: Existing files, in order.
        unknown: Words that end like a picture's name and name no file; they are still in the text.
    """

    text: str
    pictures: tuple[Path, ...] = ()
    unknown: tuple[str, ...] = ()


def read_line(text: str) -> Line:
    """Return the text and the pictures of a line.

    Raises:
        UserError: If it has the path of a picture that is not there, or the address of one on the web.
    """
    kept: list[str] = []
    pictures: list[Path] = []
    unknown: list[str] = []
    end = 0
    for start in _starts(text):
        if start < end:
            continue
        found = _picture_at(text, start)
        if isinstance(found, str):
            unknown.append(found)
        elif found is not None:
            path, after = found
            kept.append(text[end:start])
            pictures.append(path)
            end = after
    rest = "".join([*kept, text[end:]])
    return Line(re.sub(r"[ \t]{2,}", " ", rest).strip() if pictures else rest.strip(), tuple(pictures), tuple(unknown))


def picture_path(text: str) -> Path:
    """Return the file of a picture, named by itself: quoted, escaped, an address of a file, or plain.

    Raises:
        UserError: If there is no such file.
    """
    plain = _existing(text)
    if plain is not None:
        return plain
    line = read_line(text)
    if len(line.pictures) == 1 and not line.text:
        return line.pictures[0]
    raise UserError(f"{text}: no such file: check the path")


def _starts(text: str) -> Iterator[int]:
    return (match.start() for match in _STARTS.finditer(text))


def _picture_at(text: str, start: int) -> tuple[Path, int] | str | None:
    """Return the picture that is named at a place and where its name ends; an unknown name; or None.

    Raises:
        UserError: See `read_line`.
    """
    quoted = _QUOTED.match(text, start)
    if quoted is not None:
        inner = quoted[1].replace("'\\''", "'") if quoted[1] is not None else re.sub(r"\\(.)", r"\1", quoted[2])
        return _named(inner, quoted.end(), whole=True)
    word = _WORD.match(text, start)
    assert word is not None
    if _ADDRESS.match(word[0]):
        # A file's address has no spaces; punctuation behind its ending belongs to the sentence.
        ends = [match.end() for match in _SUFFIX.finditer(word[0])]
        address = word[0][: ends[-1]] if ends else word[0]
        return _named(address, start + len(address), whole=False)
    if _PATH.match(word[0]):
        # Spaces may be part of the name, so the longest that is a file counts.
        for match in reversed([*_SUFFIX.finditer(text, start)]):
            if path := _existing(text[start : match.end()]):
                return path, match.end()
        bare = word[0].rstrip(".,;:!?)]")
        if path := _existing(bare):
            return path, start + len(bare)
    ends = [match.end() for match in _SUFFIX.finditer(word[0])]
    return _named(word[0][: ends[-1]], start + ends[-1], whole=False) if ends else None


def _named(name: str, end: int, *, whole: bool) -> tuple[Path, int] | str | None:
    """Return the picture of a name; `whole`: the name stood in quotes, which may hold anything."""
    address = _ADDRESS.match(name)
    if address and not name.lower().startswith("file://"):
        if _SUFFIX.search(name):
            raise UserError(f"{name}: pictures are not fetched from the web: download it, and give the file's path")
        return None
    if not address and not _SUFFIX.search(name) and not _PATH.match(name):
        return None  # a word, even if a file has this name
    path = _existing(_path_of(name) if address else name)
    if path is not None:
        return path, end
    if not address and not _SUFFIX.search(name):
        return None
    if address or _PATH.match(name):
        raise UserError(f"{name}: no such file: check the path (nothing was sent)")
    return None if whole else name


def _path_of(address: str) -> str:
    """Return the path of a `file://` address."""
    return unquote(urlsplit(address.replace("?", "%3F").replace("#", "%23")).path)


def _existing(name: str) -> Path | None:
    """Return the file of a name as it is, unescaped, or with letters composed otherwise (as macOS writes them)."""
    for given in dict.fromkeys((name, re.sub(r"\\(.)", r"\1", name))):
        for form in (given, unicodedata.normalize("NFC", given), unicodedata.normalize("NFD", given)):
            path = os.path.expanduser(form)
            if os.path.isfile(path):
                return Path(path)
    return None
