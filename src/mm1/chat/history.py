"""A chat on disk: one JSON file, written whole after every round. Pictures are named by path and hash, not copied."""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mm1.chat.conversation import Round
from mm1.document import Image
from mm1.errors import UserError
from mm1.files import write_json

_FORMAT = 1
_OWNER_ONLY = 0o700


@dataclass(frozen=True)
class Saved:
    """A chat as it was saved.

    Attributes:
        model: Name of the model that it was with.
        rounds: What was said.
        examples: The folder or file of examples, how many of them, and their hash; None if there were none.
    """

    model: str
    rounds: list[Round]
    examples: tuple[Path, int, str] | None


def chats_folder() -> Path:
    """Return the folder that chats are saved to by default: `mm1/chats` in the user's data folder (XDG)."""
    own = os.environ.get("XDG_DATA_HOME") or ""
    return (Path(own) if os.path.isabs(own) else Path.home() / ".local" / "share") / "mm1" / "chats"


def new_file(model: str) -> Path:
    """Return the file of a new chat with a model; its folder is open to the user alone."""
    folder = chats_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=_OWNER_ONLY)
    except OSError as error:
        raise UserError(
            f"{folder}: chats can't be saved there ({error.strerror}): name a file with --history"
        ) from None
    return folder / f"{_slug(model)}.{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}.json"


def last_file(model: str) -> Path:
    """Return the newest file of a chat with a model.

    Raises:
        UserError: If there is none.
    """
    files = sorted(chats_folder().glob(f"{_slug(model)}.*.json"), key=lambda file: file.stat().st_mtime_ns)
    if not files:
        raise UserError(f"no chat with {model} is saved in {chats_folder()}: leave --resume out to begin one")
    return files[-1]


def write_history(
    file: Path, model: str, rounds: Iterable[Round], examples: tuple[Path, int, str] | None = None
) -> None:
    """Write a chat, whole or not at all.

    Raises:
        UserError: If it can't be written.
    """
    shown: dict[str, Any] | None = None
    if examples is not None:
        place, count, digest = examples
        shown = {"path": str(place), "count": count, "sha256": digest}
    content = {"format": _FORMAT, "model": model, "examples": shown, "rounds": [_row(one) for one in rounds]}
    try:
        write_json(file, content)
    except OSError as error:
        raise UserError(f"{file}: the chat can't be saved there ({error.strerror}): name another file") from None


def read_history(file: Path) -> Saved:
    """Return a saved chat, its pictures read.

    Raises:
        UserError: If the file is no chat, or one of its pictures is lost or has changed.
    """
    try:
        content = json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UserError(f"{file}: the chat can't be read ({error.strerror}): check the path") from None
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise UserError(f"{file}: not a chat that this mm1 saved: name another file, which then is made")
    try:
        shown = content["examples"]
        examples = None if shown is None else (Path(shown["path"]), int(shown["count"]), str(shown["sha256"]))
        return Saved(str(content["model"]), [_round(row, file) for row in content["rounds"]], examples)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{file}: the chat is damaged ({type(error).__name__}: {error}): mend it, or name another file"
        ) from None


def _row(one: Round) -> dict[str, Any]:
    pictures = [{"path": picture.path, "sha256": _hash(picture.read())} for picture in one.pictures]
    row = {"pictures": pictures, "question": one.question, "answer": one.answer, "tokens": one.tokens}
    return {**row, "seconds": round(one.seconds, 3), **({"raw": True} if one.raw else {})}


def _round(row: dict[str, Any], file: Path) -> Round:
    pictures = tuple(_picture(str(one["path"]), str(one["sha256"]), file) for one in row["pictures"])
    seconds = float(row.get("seconds", 0))
    raw = bool(row.get("raw", False))
    return Round(pictures, str(row["question"]), str(row["answer"]), raw, int(row.get("tokens", 0)), seconds)


def _picture(path: str, expected: str, file: Path) -> Image:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(
            f"{path}: a picture of the chat {file} can't be read ({error.strerror}): put it back, or begin another chat"
        ) from None
    if _hash(data) != expected:
        raise UserError(
            f"{path}: this picture of the chat {file} has changed since: put the old one back, or begin another chat"
        )
    return Image(data, path)


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _slug(model: str) -> str:
    return re.sub(r"[^\w.-]+", "-", model).strip("-.") or "model"
