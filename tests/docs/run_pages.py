"""Runs the blocks of the documentation, page by page, in a folder of its own with tiny data: `make test-docs`.

Commands of mm1 run in this process, as the command line calls them. What makes them short is added to them and shown.
Everything else runs in a shell, where `mm1` and `python` are those of this process.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from mm1.cli import main
from tests.corpora.fake_sources import put_emoji_groups, put_sources
from tests.docs.blocks import ROOT, Block, blocks, mm1_words, pages, shell_commands
from tests.docs.given import DEMO, prepare, put_given

TRAIN = [
    "train.steps=2",
    "train.warmup_steps=1",
    "train.batch_size=2",
    "train.checkpoint_every=1",
]
SHORT: dict[str, Sequence[str]] = {
    "pretrain": [*TRAIN, "tokenizer.vocab_size=512", "model.language_model.hidden_size=48"],
    "sft": [*TRAIN, "evaluate.limit=4"],
    "encoder": [*TRAIN[:2], "train.batch_size=8", "train.checkpoint_every=1", "tokenizer.vocab_size=400"],
    "demo": DEMO,
    "plan": ["train.steps=8", "tokenizer.vocab_size=512"],
}
"""Settings that are added to commands that train or plan."""
ITEMS = {"evaluate": ["--limit", "4"], "recaption": ["--limit", "4"]}
SMALL_CORPORA = {
    "scenes": "count=60 questions=9 heldout=20",
    "pages": "count=30 heldout=36 shots=8",
    "chats": "count=60",
    "rounds": "count=60",
    "find": "count=30 heldout=20",
}
"""Options of the corpora in `data`, with which a build keeps them."""
ELSEWHERE = ("source", "pip", "tensorboard", "wandb", "echo", "export")
"""Commands beside others in a block that are left out: they are about the reader's environment. So are commands with
the model smollm2, which is a package of 270 MB."""


def short(words: Sequence[str]) -> list[str]:
    """Return the words of a call of mm1 with what makes it short."""
    command = next(word for word in words if word not in ("data", "scale", "study"))
    settings = list(SHORT.get(command, ()))
    if any("train.profile" in word for word in words):
        settings.append("train.profile=[2,1]")
    if any("evaluate.during" in word for word in words):
        settings.append("evaluate.during={every: 1, tasks: [easy-vqa], shots: [0], limit: 2}")
    if any(word.startswith("model.language_model") or word.startswith("model.from") for word in words):
        settings = [setting for setting in settings if not setting.startswith("model.language_model")]
    added = [word for setting in settings for word in ("--set", setting)]
    return [re.sub(r"(runs/[\w-]+)@\d+", r"\1@2", word) for word in words] + added + ITEMS.get(command, [])


def smaller(content: str) -> str:
    """Return a YAML file that a page shows with fewer steps and items."""
    content = re.sub(r"train\.steps: \d+", "train.steps: 2\n  tokenizer.vocab_size: 512", content)
    content = re.sub(r"warmup_steps: \d+", "warmup_steps: 1", content)
    return re.sub(r"limit: \d+", "limit: 4", content)


def calls(words: Sequence[str]) -> list[list[str]]:
    """Return the calls that stand for one: a build of several corpora is a build of each, with its small size."""
    if list(words[:2]) == ["data", "build"] and "--from" not in words:
        return [
            ["data", "build", name, *(w for s in SMALL_CORPORA.get(name, "").split() for w in ("--set", s))]
            for name in words[2:]
        ]
    return [short(words)]


def mm1(*words: str) -> None:
    """Call mm1 in this process.

    Raises:
        AssertionError: If it doesn't exit with 0.
    """
    print("$ mm1", *words)
    arguments, sys.argv = sys.argv, ["mm1", *words]
    code: Any = 0
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        main()
    except SystemExit as done:
        code = done.code or 0
    finally:
        sys.argv = arguments
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert code == 0, f"mm1 {' '.join(words)} exits with {code}"


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that all pages begin with a copy of; made once, whatever the number of processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "given"
    with FileLock(f"{folder}.lock"):
        if not (folder / "whole").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            before = Path.cwd()
            os.chdir(folder)
            try:
                prepare(folder, mm1)
            finally:
                os.chdir(before)
            (folder / "whole").touch()
    return folder


def to_run(page: Path) -> list[Block]:
    """Return the blocks of a page that a test runs."""
    return [b for b in blocks(page) if (b.kind in ("commands", "python") or b.file is not None) and b.reason is None]


@pytest.mark.parametrize("page", [page for page in pages() if to_run(page)], ids=str)
def test_page(page: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "here"
    shutil.copytree(home, folder)
    monkeypatch.chdir(folder)
    for name in ("MM1_DATA", "MM1_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}")
    put_command(tmp_path / "bin" / "mm1")
    names = put_given(page, folder)
    for block in to_run(page):
        print(f"--- {block}")
        if block.file is not None:
            Path(block.file).write_text(smaller(block.content))
        elif block.kind == "python":
            exec(compile(block.content, str(block), "exec"), names)
        elif " &\n" in block.content:  # one shell, which knows its job
            shell(block.content)
        else:
            for command in shell_commands(block.content):
                run(command)


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    notebook = nbformat.read(ROOT / "docs" / "tutorial" / "in-python.ipynb", as_version=4)
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("MM1_NOTEBOOK_SIZE", "60")
    monkeypatch.setenv("MM1_NOTEBOOK_STEPS", "3")
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"), prepend=os.pathsep)
    put_sources(tmp_path / "data")
    put_emoji_groups(tmp_path / "data" / "downloads")
    stored = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    made = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    assert [kinds(outputs) for outputs in made] == [kinds(outputs) for outputs in stored]


def kinds(outputs: list[Any]) -> set[str]:
    """Return what a cell put out: `text` or `picture`; progress on standard error is neither."""
    pictures = {"picture" for output in outputs if "image/png" in output.get("data", {})}
    return pictures | {"text" for output in outputs if output.get("name") == "stdout"}


def put_command(file: Path) -> None:
    """Put the command `mm1` into a folder: that of the package under test."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f'#!/bin/sh\nPYTHONPATH="{ROOT / "src"}:$PYTHONPATH" exec "{sys.executable}" -m mm1 "$@"\n')
    file.chmod(0o755)


def run(command: str) -> None:
    """Run one command of a block."""
    words = mm1_words(command)
    if command.split()[0] in ELSEWHERE or "smollm2" in command:
        print(f"({command}: left out)")
    elif words is not None and command.startswith("mm1 ") and words[0] == "serve":
        serve(words)
    elif words is not None and command.startswith("mm1 ") and words[0] != "chat":
        make_room(words)
        for call in calls(words):
            mm1(*call)
    else:
        if words is not None and command.startswith("torchrun"):
            before = command.split(" -m mm1 ")[0]
            command = f"{before} -m mm1 {subprocess.list2cmdline(short(words))}"
        shell(command)


def make_room(words: Sequence[str]) -> None:
    """Remove a given run that a command is about to make by a recipe of its own."""
    if words[0] in ("pretrain", "sft", "encoder") or (list(words[:2]) == ["data", "plan"] and "--to" in words):
        target = words[words.index("--to") + 1] if "--to" in words else f"runs/{words[1]}"
        shutil.rmtree(target, ignore_errors=True)


def shell(text: str) -> None:
    """Run commands in a shell, with a question on standard input."""
    print("$", text)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}:{os.environ.get('PYTHONPATH', '')}"}
    done = subprocess.run(
        ["bash", "-c", text],
        input="what is it?\n",
        text=True,
        capture_output=True,
        env=environment,
        timeout=300,
        check=False,
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, text


def serve(words: Sequence[str]) -> None:
    """Start a server until it says that it answers, and end it."""
    print("$ mm1", *words, "(+ --port 0)")
    process = subprocess.Popen(["mm1", *words, "--port", "0"], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    said = ""
    deadline = time.monotonic() + 120
    while "answers at" not in said and time.monotonic() < deadline and process.poll() is None:
        said += process.stderr.readline()
    process.terminate()
    assert process.wait(60) == 0, said
    assert "answers at" in said
