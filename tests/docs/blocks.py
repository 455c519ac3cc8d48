"""The fenced blocks of the documentation: commands, Python and YAML, and the marks of those that no test runs.

<!-- not run: it needs a GPU -->
```
mm1 pretrain mm1-3b
```
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

COMMANDS = {
    "apt-get",
    "bash",
    "cat",
    "curl",
    "docker",
    "echo",
    "export",
    "kubectl",
    "lmms-eval",
    "lm_eval",
    "make",
    "mkdir",
    "mm1",
    "pip",
    "pkill",
    "pre-commit",
    "printf",
    "python",
    "sbatch",
    "sky",
    "source",
    "squeue",
    "srun",
    "tail",
    "tensorboard",
    "torchrun",
    "trackio",
    "vllm",
    "wandb",
}
"""A block is one of commands if a line begins with one of these, or with `$` and one of these."""

_FENCE = re.compile(r"^ *```(\S*)")
_FILE = re.compile(r"[Ww]rite `([\w-]+\.yaml)`:$")
_MARK = re.compile(r"^ *<!-- not run: (.*?) *-->$")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        page: The page, relative to the root of the repository.
        line: Number of its first line, the fence's.
        language: What the fence says; empty: nothing.
        content: The lines between the fences.
        reason: Why no test runs it; None: `make test-docs` does.
        file: Name of the file that the reader is to write it to; None: none.
    """

    page: Path
    line: int
    language: str
    content: str
    reason: str | None
    file: str | None = None

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def kind(self) -> str:
        """`commands`, `python`, `yaml`, or empty: nothing to run."""
        if self.language in ("python", "yaml"):
            return self.language
        if self.language in ("", "bash", "console", "sh") and any(map(is_command, self.content.splitlines())):
            return "commands"
        return ""


def is_command(line: str) -> bool:
    """Return whether a line begins with a command."""
    words = line.removeprefix("$ ").split(maxsplit=1)
    return bool(words) and words[0] in COMMANDS


def pages() -> list[Path]:
    """Return all pages, relative to the root."""
    found = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page.relative_to(ROOT) for page in found]


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page in order."""
    lines = iter(enumerate((ROOT / page).read_text().splitlines(), start=1))
    reason = file = None
    for number, line in lines:
        fence = _FENCE.match(line)
        if fence:
            content = []
            for _, inner in lines:
                if inner.strip() == "```":
                    break
                content.append(inner)
            yield Block(page, number, fence[1], "\n".join(content) + "\n", reason, file)
            reason = file = None
        elif mark := _MARK.match(line):
            reason = mark[1]
        elif line.strip():
            reason = None
            file = named[1] if (named := _FILE.search(line)) else None


def shell_commands(content: str) -> Iterator[str]:
    """Yield the commands of a block, each as one text: lines that go on, and documents in place, belong to theirs.

    In a block with `$`, only the lines that begin with it are commands: the others are what they print.
    """
    transcript = any(line.startswith("$ ") for line in content.splitlines())
    lines = iter(content.splitlines())
    for line in lines:
        if transcript and not line.startswith("$ "):
            continue
        command = line.removeprefix("$ ")
        while command.endswith("\\") or _words(command) is None:
            command += "\n" + next(lines)
        if end := re.search(r"<<(\w+)", command):
            while command.splitlines()[-1] != end[1]:
                command += "\n" + next(lines)
        if command.strip():
            yield command


def mm1_words(command: str) -> list[str] | None:
    """Return the words of the call of mm1 in a command, `mm1` left out; None if it calls something else."""
    words = _words(command) or []
    if words[:1] == ["mm1"]:
        words = words[1:]
    elif words[:1] == ["torchrun"] and "mm1" in words:
        words = words[words.index("mm1") + 1 :]
    elif "|" in words and words[words.index("|") + 1] == "mm1":
        words = words[words.index("|") + 2 :]
    else:
        return None
    ends = [place for place, word in enumerate(words) if word in ("|", "&", ">", "2>", "&&")]
    return words[: min(ends, default=len(words))]


def _words(command: str) -> list[str] | None:
    """Return the words of a command without its comments; None if a quotation mark isn't closed."""
    try:
        return shlex.split(command.replace("\\\n", " "), comments=True)
    except ValueError:
        return None
