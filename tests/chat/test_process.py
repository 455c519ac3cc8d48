"""`mm1 chat` as a user starts it: questions from a pipe, and a person at a terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

from mm1.evaluate.caption import caption_image
from tests.chat.conftest import QUESTIONS

COMMAND = [sys.executable, "-m", "mm1", "chat"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200", "TERM": "xterm"}


def test_questions_from_a_pipe(trained: Path, home: Path) -> None:
    """Answers alone are on standard output, a line each. After a mistake they would be taken for others'."""
    lines = f"{QUESTIONS[0]}\n\n{QUESTIONS[1]} blue.png\n\xff?\n./none.png what?\n{QUESTIONS[0]}\n".encode("latin-1")
    result = subprocess.run(
        [*COMMAND, str(trained), "green.png"], input=lines, env=ENVIRONMENT, capture_output=True, check=False
    )
    assert result.returncode == 2, result.stderr
    first, second, _of_bytes_that_are_no_utf8, end = result.stdout.decode().split("\n")
    assert (first, second, end) == ("green", "blue", "")
    assert first == caption_image(trained, home / "green.png", QUESTIONS[0])
    said = result.stderr.decode()
    assert "picture 2: " in said
    assert "error: ./none.png: no such file: check the path" in said
    assert "Traceback" not in said
    assert ">>>" not in said
    assert not (home / "share").exists(), "a chat from a pipe is not saved"


_DEVICE_ATTRIBUTES, _HAS_SIXEL = "\x1b[c", "\x1b[?62;4c"
"""What asks a terminal for what it can, and the answer of one that shows pictures by sixel."""


class Person:
    """Somebody at a terminal that shows pictures."""

    def __init__(self, *arguments: str) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 200, 2000, 800))  # rows, columns, pixels
        self.process = subprocess.Popen(
            [*COMMAND, *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=ENVIRONMENT,
            start_new_session=True,
        )
        os.close(slave)
        self.seen = ""

    def sees(self, words: str, seconds: float = 90) -> None:
        """Wait until words are on the screen, and forget what was there."""
        end = time.monotonic() + seconds
        while words not in self.seen:
            assert time.monotonic() < end, f"{words!r} is not in {self.seen!r}"
            if select.select([self.master], [], [], 1)[0]:
                try:
                    read = os.read(self.master, 4096).decode(errors="replace")
                    if _DEVICE_ATTRIBUTES in read:
                        self.types(_HAS_SIXEL)
                    self.seen += read
                except OSError:  # the process has closed the terminal
                    assert words in self.seen, self.seen
        self.seen = self.seen.partition(words)[2]

    def types(self, words: str) -> None:
        os.write(self.master, words.encode())

    def interrupts(self, words: str) -> None:
        """Press Ctrl-C until words are on the screen: Python's readline misses a signal that comes with a key."""
        for attempt in range(1, 31):
            os.killpg(self.process.pid, signal.SIGINT)
            try:
                self.sees(words, seconds=3)
                return
            except AssertionError:
                if attempt == 30:
                    raise


def test_a_person_at_a_terminal(trained: Path, home: Path) -> None:
    """Paths are completed, what was typed comes back with the arrow key, Ctrl-C and Ctrl-D do what they should."""
    person = Person(str(trained), "red.png")
    try:
        person.sees("\x1bP0;0;0q")  # a picture in sixel
        person.sees("picture 1: ")
        person.sees(">>> ")
        person.types(f"{QUESTIONS[0]}\n")
        person.sees("red")
        person.sees("tokens in")
        person.sees(">>> ")
        person.types(f"gre\t {QUESTIONS[1]}\n")
        person.sees("picture 2: ")
        person.sees("green\r\n")
        person.sees(">>> ")
        person.types("half a line")
        person.sees("half a line")
        person.interrupts("(Ctrl-D or /quit ends the chat)")
        person.sees(">>> ")
        person.types("\x1b[A")
        person.sees(QUESTIONS[1])
        person.types("\x15/undo\n")
        person.sees("took back: ")
        person.sees(">>> ")
        person.types("\x04")
        person.sees("saved; go on with: mm1 chat ")
        assert person.process.wait(30) == 0
    finally:
        person.process.kill()
        os.close(person.master)
