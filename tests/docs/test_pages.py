"""What the documentation shows is there: commands, options, names, keys. `make test-docs` runs it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from mm1.errors import UserError
from tests.docs.blocks import ROOT, Block, blocks, mm1_words, pages, shell_commands
from tests.docs.check import check_call, check_yaml, find_command

BLOCKS = [block for page in pages() for block in blocks(page)]
CALLS = [
    pytest.param(words, id=f"{block} {' '.join(words)}"[:100])
    for block in BLOCKS
    if block.kind == "commands"
    for command in shell_commands(block.content)
    if (words := mm1_words(command)) is not None
]


def of_kind(kind: str) -> list[Block]:
    found = [block for block in BLOCKS if block.kind == kind]
    assert found
    return found


@pytest.mark.parametrize("words", CALLS)
def test_a_command_is_one_that_there_is(words: list[str]) -> None:
    check_call(words)


@pytest.mark.parametrize("block", of_kind("yaml"), ids=str)
def test_yaml_fits_its_schema(block: Block, tmp_path: Path) -> None:
    check_yaml(block, tmp_path)


@pytest.mark.parametrize("block", of_kind("python"), ids=str)
def test_python_is_python(block: Block) -> None:
    ast.parse(block.content)


def test_reasons_are_sentences_and_stand_before_blocks() -> None:
    for page in pages():
        marks = re.findall(r"^ *<!-- not run:", (ROOT / page).read_text(), re.MULTILINE)
        marked = [block for block in BLOCKS if block.page == page and block.reason]
        assert len(marks) == len(marked), f"{page}: a mark does not stand right before a block"
        assert all(block.kind and len(block.reason.split()) >= 3 for block in marked if block.reason), page


def test_commands_within_sentences_are_there() -> None:
    for page in pages():
        text = re.sub(r"^ *```.*?^ *```", "", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)
        for call in re.findall(r"`mm1 ([a-z][^`]*)`", text):
            find_command(re.sub(r"\s+", " ", call).split(" "))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pretrian", "demo"], "pretrian"),
        (["pretrain", "demo", "--set", "train.stesp=4"], "did you mean 'steps'"),
        (["pretrain", "demo", "--stesp", "4"], "--stesp"),
        (["sft", "sft-demos"], "sft-demo"),
        (["evaluate", "runs/demo", "--tasks", "page"], "pages"),
        (["data", "build", "scens"], "scenes"),
        (["data", "build", "--from", "web-dataset", "a", "--to", "b"], "webdataset"),
        (["study", "run", "laptop/mask"], "laptop"),
        (["launch", "pretrain", "dmo"], "demo"),
    ],
)
def test_a_stale_command_is_found(words: list[str], said: str) -> None:
    with pytest.raises(Exception, match=re.escape(said)):
        check_call(words)


def test_stale_yaml_is_found(tmp_path: Path) -> None:
    for content in ("train: {stesp: 4}", "shots: {spilt: train}", "claims: []\nbase: demo", "- image-sise: {}"):
        with pytest.raises(UserError):
            check_yaml(Block(Path("page.md"), 1, "yaml", content, None), tmp_path)
