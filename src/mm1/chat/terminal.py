"""Reads lines from a person or a pipe, and writes to either: answers to standard output, all else to standard error."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
from collections.abc import Iterable
from typing import Any

from mm1.chat.writing import printable
from mm1.document import Image
from mm1.processing.images import decode_image
from mm1.progress import console, terminal

_QUOTES = '"""'
_PICTURE_CELLS = 40
"""Width of a shown picture in cells of the terminal."""


class Terminal:
    """The user's side of a chat.

    With a person at it, lines are edited by readline (arrow keys, Tab completes paths), and pictures are shown where
    the terminal can. From a pipe come plain lines, and only answers go to standard output.
    """

    def __init__(self) -> None:
        for stream in (sys.stdin, sys.stdout):
            # Bytes that are no UTF-8 must not end a chat; nor a terminal that lacks a letter of an answer.
            with contextlib.suppress(AttributeError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]  # a test may have put in another one
        self.interactive = sys.stdin.isatty()
        self.is_screen = self.interactive and sys.stdout.isatty()
        # The terminal is asked what it shows now, while nobody types: its answer comes as if it were typed.
        self._show: Any = _picture_class() if self.is_screen else None
        if self.interactive:
            _edit_lines()

    def read(self) -> str | None:
        '''Return the next line, or the lines between two `"""`; None at the end.'''
        line = self._line(">>> ")
        if line is None or not line.lstrip().startswith(_QUOTES):
            return line
        lines = [line.lstrip().removeprefix(_QUOTES)]
        while not lines[-1].rstrip().endswith(_QUOTES):
            more = self._line("... ")
            if more is None:
                break
            lines.append(more)
        return "\n".join(lines).rstrip().removesuffix(_QUOTES)

    def _line(self, prompt: str) -> str | None:
        if self.is_screen:
            try:
                return input(prompt)
            except EOFError:
                return None
        if self.interactive:
            print(prompt, end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        return line.rstrip("\r\n") if line else None

    def write(self, words: str) -> None:
        """Write a piece of an answer."""
        sys.stdout.write(printable(words) if self.is_screen else words)
        sys.stdout.flush()

    def end_answer(self) -> None:
        """End the line of an answer."""
        self.write("\n")

    def say(self, sentence: str) -> None:
        """Say something that is no answer."""
        console.print(printable(sentence), style="dim" if self.is_screen else None, soft_wrap=True)

    def complain(self, sentence: str) -> None:
        """Say what went wrong."""
        console.print(printable(f"error: {sentence}"), style="red" if self.is_screen else None, soft_wrap=True)

    def show(self, number: int, picture: Image) -> None:
        """Show a picture where the terminal can, and name it.

        Raises:
            ImageError: If it is not a readable picture.
        """
        decoded = decode_image(picture.read())
        if self._show is not None:
            screen = terminal()
            try:
                screen.print(self._show(decoded, width=min(_PICTURE_CELLS, screen.width)))
            except Exception:  # a terminal that has no size, or that answers what the library can't read
                self._show = None
        self.say(f"picture {number}: {picture.path} ({decoded.width}x{decoded.height})")

    def remember(self, questions: Iterable[str]) -> None:
        """Let the arrow keys bring questions back."""
        if self.interactive:
            with contextlib.suppress(ImportError):
                import readline

                for question in questions:
                    if question:
                        readline.add_history(question)


def _picture_class() -> Any:
    """Return what shows pictures here, by sixel or kitty's protocol (the library `textual-image`); or None."""
    try:
        from textual_image import renderable
    except Exception:  # not installed, or a terminal that it can't ask
        return None
    can = renderable.Image in (renderable.SixelImage, renderable.TGPImage)
    return renderable.Image if can else None


def _edit_lines() -> None:
    """Have `input` edit lines, and complete paths at Tab."""
    try:
        import readline
    except ImportError:  # a Python without it
        return
    readline.set_completer_delims(" \t\n")
    readline.set_completer(lambda text, state: next(iter(_paths(text)[state : state + 1]), None))
    is_libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if is_libedit else "tab: complete")


def _paths(start: str) -> list[str]:
    found = glob.glob(glob.escape(os.path.expanduser(start)) + "*")
    return sorted(f"{path}/" if os.path.isdir(path) else path for path in found)


def counted(count: int, noun: str) -> str:
    """Return `1 picture`, `2 pictures`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
