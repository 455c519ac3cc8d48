"""The loop of a chat: read a line, do what it says, until there is none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mm1.chat.commands import is_command, obey
from mm1.chat.lines import picture_path, read_line
from mm1.chat.session import Session
from mm1.errors import UserError


def hold_chat(session: Session, pictures: Sequence[str] = (), examples: Path | None = None) -> None:
    """Hold a chat until `/quit` or the end of the input.

    Args:
        session: The chat.
        pictures: Shown with the first question.
        examples: A folder or a file of examples.

    Raises:
        UserError: If one of them can't be read; from a pipe, whatever goes wrong, since later answers would be taken
            for those of other questions.
    """
    if examples is not None:
        session.show_examples(examples)
    for picture in pictures:
        session.attach(picture_path(picture))
    _greet(session)
    while True:
        try:
            line = session.terminal.read()
            if line is None or not _answer(session, line):
                break
        except KeyboardInterrupt:
            if not session.terminal.interactive:
                raise
            session.terminal.say("\n(Ctrl-D or /quit ends the chat)")
        except UserError as error:
            if not session.terminal.interactive:
                raise
            session.terminal.complain(str(error))
    if session.terminal.interactive and session.file is not None and session.chat.rounds:
        session.terminal.say(f"\nsaved; go on with: mm1 chat {session.model} --history {session.file}")


def _answer(session: Session, text: str) -> bool:
    """Do what a line says; return whether the chat goes on."""
    if is_command(text):
        return obey(session, text)
    line = read_line(text)
    for path in line.pictures:
        session.attach(path)
    for name in line.unknown:
        session.terminal.say(f"{name}: no such file, so it is text")
    if line.text or session.chat.pending:
        session.ask(line.text)
    return True


def _greet(session: Session) -> None:
    if not session.chat.turns:
        session.terminal.say(
            f"{session.model} was not trained on conversations: every line is a prompt of its own, "
            '"PICTURES Question: LINE Short answer:" (/help says more)'
        )
    if session.terminal.interactive:
        session.terminal.say("Ask, or drop a picture into the line. /help lists the commands; Ctrl-D ends.")
