"""What belongs to the machine and its user, and is never published: paths, names of user and host, tokens."""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from safetensors import SafetensorError, safe_open

from mm1.errors import UserError

_CACHED = re.compile(r"models--([\w.-]+?)--([\w.-]+)(?:/snapshots/\w+)?")
_FILE_ADDRESS = re.compile(r"file://[^\s'\"]+")
# Not behind a word, a colon or a slash: `a/b` and `https://a/b` are no absolute paths.
_PATH = re.compile(r"(?<![\w:/.~-])~?/[^\s'\",;()\[\]{}]*[\w.-]")
_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{20,}\b")
_TEXTS = (".json", ".jinja", ".md", ".py", ".txt")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "merges.txt", "vocab.txt")
"""Files of words from everywhere: a token of one may be anybody's name."""


def public(value: Any) -> Any:
    """Return JSON or YAML with the last name of every absolute path in its place, or with the Hub id that it is of."""
    if isinstance(value, dict):
        return {public(key): public(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [public(item) for item in value]
    return _public_text(value) if isinstance(value, str) else value


def _public_text(text: str) -> str:
    if re.match(r"~?/[^/]", text) and "\n" not in text:
        return _last_name(text)  # a path as a whole, which may have spaces
    text = _FILE_ADDRESS.sub(lambda match: _last_name(match[0]), text)
    return _PATH.sub(lambda match: _last_name(match[0]), text)


def _last_name(path: str) -> str:
    cached = _CACHED.search(path)
    return f"{cached[1]}/{cached[2]}" if cached else path.rstrip("/").rpartition("/")[2]


def check_private(folder: Path) -> None:
    """Check that no file of a folder tells of the machine or its user.

    Raises:
        UserError: If one does; the file and what it tells are named.
    """
    for file in sorted(folder.rglob("*")):
        if file.suffix in _TEXTS:
            _check(file.name, file.read_text("utf-8", "replace"))
        elif file.suffix == ".safetensors":
            try:
                with safe_open(file, "pt") as opened:
                    _check(file.name, json.dumps(opened.metadata() or {}))
            except SafetensorError as error:
                raise UserError(f"{file.name}: the weights can't be read ({error}): export the model again") from None


def _check(name: str, text: str) -> None:
    for what, pattern in _secrets(name):
        if match := pattern.search(text):
            line = text.count("\n", 0, match.start()) + 1
            raise UserError(f"{name}, line {line}: it tells {what}, so nothing was pushed: take it out of the file")


def _secrets(name: str) -> Iterator[tuple[str, re.Pattern[str]]]:
    yield "a token of the Hub", _TOKEN
    if token := get_token():
        yield "your token of the Hub", re.compile(re.escape(token))
    if name in _VOCABULARIES:
        return
    user, host = _user(), socket.gethostname()
    yield "the path of your home folder", _whole(str(Path.home()) + "/")
    yield "a path with your user name", re.compile(re.escape(f"/{user}/"))
    if len(Path.cwd().parts) > 2:
        yield "the path of the working directory", _whole(str(Path.cwd()))
    if len(host) > 3 and host != "localhost":
        yield "the name of this machine", re.compile(rf"\b{re.escape(host)}\b")


def _whole(path: str) -> re.Pattern[str]:
    return re.compile(rf"(?<![\w:/.-]){re.escape(path)}")


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container without a name for the user
        return str(os.getuid())
