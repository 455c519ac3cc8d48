"""What a line that begins with a slash does."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Callable
from pathlib import Path

from mm1.chat.lines import picture_path, read_line
from mm1.chat.session import Session
from mm1.chat.terminal import counted
from mm1.errors import UserError
from mm1.look.tiles import view_tiles

HELP = """\
/image FILE         show a picture with the next question (or drop or paste its path into the line)
/shots PLACE [N]    put N examples before the chat (default: all): a folder of pictures, each with a .txt
                    that holds the answer, or a .jsonl file; /shots none takes them out
/tiles [FILE]       how the pictures of this chat, or a file's, are cut, and how many tokens they take
/undo               take the last round back; its pictures wait for the next question
/clear              forget all rounds; examples stay
/save FILE          write the chat to a file too (it is saved after every answer anyway)
/quit               end (or Ctrl-D)
\"\"\"                 begins and ends a question of several lines
Ctrl-C              stop an answer; what was said of it stays"""
_HELP_WITHOUT_TURNS = """
/raw TEXT           send the text as it is, without "Question: ... Short answer:"
Lines do not see one another. A line without a picture asks about the pictures shown last; an empty line with
pictures asks for a caption."""


def is_command(line: str) -> bool:
    """Return whether a line is a command. A path at its beginning is none; a space before the slash makes it text."""
    if not line.startswith("/"):
        return False
    word = line.split(maxsplit=1)[0]
    if word[1:].lower() in _COMMANDS:
        return True
    return not ("/" in word[1:] or os.path.exists(word) or read_line(line).pictures)


def obey(session: Session, line: str) -> bool:
    """Do what a command says; return whether the chat goes on.

    Raises:
        UserError: If there is no such command, or it can't be done.
    """
    word, _, rest = line.strip().partition(" ")
    name = word[1:].lower()
    if name in ("quit", "exit", "bye"):
        return False
    command = _COMMANDS.get(name)
    if command is None:
        near = difflib.get_close_matches(name, _COMMANDS, n=1)
        advice = f"did you mean /{near[0]}?" if near else "/help lists all"
        raise UserError(f"no command '{word}': {advice} (put a space before it to send it as text)")
    command(session, rest.strip())
    return True


def _help(session: Session, rest: str) -> None:
    session.terminal.say(HELP + ("" if session.chat.turns else _HELP_WITHOUT_TURNS))


def _image(session: Session, rest: str) -> None:
    if not rest:
        raise UserError("/image: name the picture's file, as in /image cat.png")
    line = read_line(rest)
    paths = list(line.pictures) if line.pictures and not line.text else [picture_path(rest)]
    for path in paths:
        session.attach(path)


def _shots(session: Session, rest: str) -> None:
    words = _words("/shots", rest)
    if not words:
        shown = session.examples
        said = "no examples: /shots FOLDER" if shown is None else f"{counted(shown[1], 'example')} from {shown[0]}"
        session.terminal.say(said)
    elif words == ["none"]:
        session.chat.examples, session.examples = [], None
        session.terminal.say("no examples")
    elif len(words) == 1 or (len(words) == 2 and words[1].isdigit() and int(words[1]) > 0):
        session.show_examples(Path(words[0]).expanduser(), int(words[1]) if len(words) == 2 else None)
    else:
        raise UserError(f"/shots {rest}: give a folder or a file, and a number at most, as in /shots examples 4")


def _tiles(session: Session, rest: str) -> None:
    chat = session.chat
    shown = [*(picture for one in chat.rounds for picture in one.pictures), *chat.pending]
    paths = [picture_path(rest)] if rest else [Path(str(picture.path)) for picture in shown]
    if not paths:
        raise UserError("/tiles: this chat has no picture yet: name one, as in /tiles cat.png")
    processor = session.processor
    for path in paths:
        view = view_tiles(path, processor.image_size, processor.tokens_per_image, processor.rule)
        session.terminal.say(view.summary)
    used = session.count_tokens(chat.next_round("?"))
    most = processor.rule.max_pictures
    if processor.rule.cuts and most is not None and len(shown) > most:
        session.terminal.say(f"with more than {most} pictures in the prompt, each is one image")
    session.terminal.say(f"the prompt has {used:,} tokens of {session.generator.max_context:,} so far")


def _undo(session: Session, rest: str) -> None:
    if not session.chat.rounds:
        raise UserError("/undo: nothing was said yet")
    last = session.chat.rounds.pop()
    session.chat.pending[:0] = last.pictures
    session.save()
    waiting = f"; waiting: {counted(len(session.chat.pending), 'picture')}" if session.chat.pending else ""
    session.terminal.say(f"took back: {last.question or 'the caption'}{waiting}")


def _clear(session: Session, rest: str) -> None:
    session.chat.rounds.clear()
    session.chat.pending.clear()
    session.begin_file()
    session.terminal.say("forgotten")


def _save(session: Session, rest: str) -> None:
    words = _words("/save", rest)
    if len(words) != 1:
        raise UserError("/save: name one file, as in /save chat.json")
    file = Path(words[0]).expanduser()
    if file.exists():
        raise UserError(f"/save {rest}: this file exists already: name another one")
    session.save(file)
    session.terminal.say(f"saved to {file}")


def _raw(session: Session, rest: str) -> None:
    if session.chat.turns:
        raise UserError("/raw: this model takes turns, and text without a turn is none: write the question")
    session.ask(rest, raw=True)


def _words(command: str, rest: str) -> list[str]:
    try:
        return shlex.split(rest)
    except ValueError as error:
        raise UserError(f"{command} {rest}: a quote has no end ({error})") from None


_COMMANDS: dict[str, Callable[[Session, str], None]] = {
    "help": _help,
    "?": _help,
    "image": _image,
    "shots": _shots,
    "tiles": _tiles,
    "undo": _undo,
    "clear": _clear,
    "save": _save,
    "raw": _raw,
    **dict.fromkeys(("quit", "exit", "bye"), _help),
}
