"""Conversations on their way to training: counted as they are encoded, never cut inside an answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from mm1.data.corpus import open_split, write_corpus
from mm1.document import Document, Image, Part, Text
from mm1.errors import UserError
from mm1.plan.conversations import fit_conversations
from mm1.plan.index import build_index
from mm1.plan.packing import cut_documents
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import load_recipe
from mm1.train.prepare import make_plan, open_sequences
from tests.conftest import png, tiny_documents
from tests.data.sample_sources import write_files, write_lines
from tests.integration.test_command_line import mm1
from tests.processing.test_chat import CHATML


def conversation(number: int) -> Document:
    """1 to 4 rounds, a picture in every other, answers of several lengths."""
    parts: list[Part] = []
    roles: list[str] = []
    if number % 5 == 0:
        parts, roles = [Text("Be short.", target=False)], ["system"]
    for turn in range(1 + number % 4):
        if (number + turn) % 2 == 0:
            parts.append(Image(png("red")))
            roles.append("user")
        parts += [Text("What is this?", target=False), Text("so " * (1 + (number + 3 * turn) % 7))]
        roles += ["user", "assistant"]
    return Document(f"chat-{number}", "chat", tuple(parts), {"turns": roles})


@pytest.fixture(params=["default", "chatml"])
def processor(request: pytest.FixtureRequest) -> MM1Processor:
    tokenizer = train_tokenizer(["USER: What is this?\nASSISTANT: so so SYSTEM: Be short."] * 3, 300)
    if request.param == "chatml":
        tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]})
    template = default_chat_template() if request.param == "default" else CHATML
    return build_processor(tokenizer, 16, 4, chat_template=template)


@pytest.fixture
def chats(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A corpus of conversations with one other document among them."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    documents = [conversation(n) for n in range(30)]
    documents.insert(7, tiny_documents("interleaved", 3)[2])
    write_corpus(tmp_path / "data" / "chats", {"train": documents}, licence="none", sources=["made up"])
    return tmp_path / "data"


def test_counts_are_what_is_encoded(chats: Path, processor: MM1Processor) -> None:
    split = open_split("chats/train")
    index = build_index(split, processor.tokenizer, chat=processor.chat_layout)
    pieces = cut_documents(index, 4, 10_000, 100)
    assert pieces.document.tolist() == list(range(31))
    for row, document in enumerate(split):
        encoded = processor.encode(document)
        assert pieces.length[row] == len(encoded.input_ids)
        assert pieces.target[row] == encoded.target.sum()
        assert pieces.images[row] == len(document.images)
    assert index.chat is not None
    assert np.flatnonzero(~index.chat).tolist() == [7]


def test_counts_of_two_processes_are_the_same(chats: Path, processor: MM1Processor, monkeypatch) -> None:
    split = open_split("chats/train")
    alone = build_index(split, processor.tokenizer, chat=processor.chat_layout)
    (folder,) = (path for path in (chats / "chats" / "index").iterdir() if path.is_dir())
    folder.rename(folder.with_name("aside"))
    monkeypatch.setattr("mm1.plan.index._ROWS_PER_UNIT", 9)
    both = build_index(split, processor.tokenizer, workers=2, chat=processor.chat_layout)
    assert all(
        np.array_equal(getattr(alone, name), getattr(both, name)) for name in ("parts", "offsets", "target", "chat")
    )


def test_another_template_is_another_index(chats: Path, processor: MM1Processor) -> None:
    split, layout = open_split("chats/train"), processor.chat_layout
    assert layout is not None
    build_index(split, processor.tokenizer, chat=layout)
    assert isinstance(processor.chat_template, str)
    other = processor.chat_template.replace("user", "user") + " "
    changed = build_processor(processor.tokenizer, 16, 4, chat_template=other).chat_layout
    build_index(split, processor.tokenizer, chat=changed)
    assert sum(path.is_dir() for path in (chats / "chats" / "index").iterdir()) == 2
    with pytest.raises(UserError, match="chats/train: the split has conversations, but the model has no chat template"):
        build_index(split, processor.tokenizer)


@pytest.mark.parametrize(("tokens", "images"), [(26, 8), (40, 8), (60, 1), (33, 2), (12, 8)])
def test_a_long_conversation_ends_behind_an_answer(
    chats: Path, processor: MM1Processor, tokens: int, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against looking at every conversation's tokens one by one; in ranges of documents, as many are fitted."""
    monkeypatch.setattr("mm1.plan.conversations._DOCUMENTS_AT_ONCE", tokens // 4)
    split = open_split("chats/train")
    index = build_index(split, processor.tokenizer, chat=processor.chat_layout)
    fitted = fit_conversations(index, 4, tokens, images, tmp_path / "fitted")
    assert len(fitted.documents) + len(fitted.left_out) == len(split)
    pieces = cut_documents(fitted.index.take(fitted.documents), 4, max(tokens, 1000), 100)
    of = {int(row): place for place, row in enumerate(fitted.documents)}
    for row, document in enumerate(split):
        encoded = processor.encode(document)
        whole = len(encoded.input_ids) <= tokens and len(document.images) <= images
        if whole or document.kind != "chat":
            assert pieces.length[of[row]] == len(encoded.input_ids)
            continue
        # Ends of answers: target tokens that none follows.
        ends = np.flatnonzero(encoded.target & ~np.append(encoded.target[1:], False)) + 1
        fits = [e for e in ends if e <= tokens and (encoded.image_starts < e).sum() <= images]
        if fits:
            assert row in fitted.shortened
            assert pieces.length[of[row]] == max(fits)
            assert pieces.target[of[row]] == encoded.target[: max(fits)].sum()
            assert pieces.images[of[row]] == (encoded.image_starts < max(fits)).sum()
        else:
            assert row in fitted.left_out


def chat_recipe(recipe_file: Path, **data: Any) -> Path:
    content = yaml.safe_load(recipe_file.read_text())
    content["data"] |= {"mixture": {"chat": {"weight": 1, "sources": [{"corpus": "chats/train"}]}}} | data
    file = recipe_file.with_name("chat.yaml")
    file.write_text(yaml.safe_dump(content))
    return file


def test_a_plan_says_what_was_shortened_and_left_out(chats: Path, recipe_file: Path, tmp_path: Path) -> None:
    info = make_plan(load_recipe(str(chat_recipe(recipe_file, sequence_length=44))), tmp_path / "run")
    shortened, left_out = info["warnings"][:2]
    assert "chats/train: " in shortened
    assert "of 31 conversations are longer than a sequence (44 tokens, 4 images) and end after the last" in shortened
    assert "are left out, since their first answer does not fit" in left_out
    assert "for example 'chat-" in left_out
    dataset = open_sequences(tmp_path / "run")
    eos = dataset.processor.tokenizer.eos_token_id
    for number in range(len(dataset)):
        sequence, end = dataset[number], 0
        for row in dataset.plan.pieces(number):
            start, end = end, end + int(dataset.plan.length[row])
            assert dataset.plan.first[row] == 0 or dataset.plan.document[row] == 7
            assert sequence.input_ids[end - 1] == eos
            assert end - 1 in sequence.target_positions + 1
            assert start not in sequence.target_positions + 1


def test_nothing_that_fits(chats: Path, recipe_file: Path) -> None:
    write_corpus(chats / "chats", {"train": [conversation(3)]}, licence="none", sources=[])
    with pytest.raises(UserError, match="chats/train: the split has no documents that fit"):
        make_plan(load_recipe(str(chat_recipe(recipe_file, sequence_length=16))))


def test_a_template_from_a_file(chats: Path, recipe_file: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.jinja"
    own.write_text(default_chat_template().replace("USER", "HUMAN"))
    recipe = chat_recipe(recipe_file)
    hashes = [make_plan(load_recipe(str(recipe), s))["hash"] for s in ([], [f"model.chat_template={own}"])]
    assert hashes[0] != hashes[1]
    with pytest.raises(UserError, match=r"nothing\.jinja: the chat template can't be read"):
        make_plan(load_recipe(str(recipe), [f"model.chat_template={tmp_path / 'nothing.jinja'}"]))


def test_conversations_that_cannot_be_laid_out(chats: Path, processor: MM1Processor) -> None:
    """As corpora of earlier versions have them: a plan is made without them, and says so."""
    ask, answer, red = Text("What?", target=False), Text("so"), Image(png("red"))
    odd = [
        Document("ends", "chat", (ask, answer, red), {"turns": ["user", "assistant", "user"]}),
        Document("alone", "chat", (red,), {"turns": ["user"]}),
        Document("empty", "chat", (), {"turns": []}),
        Document("roles", "chat", (ask, answer), {"turns": ["user", "narrator"]}),
        Document("number", "chat", (ask, answer), {"turns": ["user"]}),
    ]
    write_corpus(chats / "chats", {"train": [conversation(1), *odd, conversation(2)]}, licence="none", sources=[])
    split = open_split("chats/train")
    index = build_index(split, processor.tokenizer, chat=processor.chat_layout)
    unusable = sorted(row for rows in index.unusable.values() for row in rows)
    assert {4, 5} <= set(unusable) <= {1, 2, 3, 4, 5}
    assert (3 in unusable) == (len(processor.encode(odd[2]).input_ids) < 2)
    fitted = fit_conversations(index, 4, 10_000, 100, chats / "fitted")
    assert sorted([*fitted.documents, *unusable]) == list(range(7))
    pieces = cut_documents(fitted.index.take(fitted.documents), 4, 10_000, 100)
    for length, place in zip(pieces.length, pieces.document, strict=True):
        assert length == len(processor.encode(split[int(fitted.documents[place])]).input_ids)
    for row in (4, 5):
        with pytest.raises(UserError, match=f"document '{odd[row - 1].id}'"):
            processor.encode(split[row])


def test_a_conversation_that_ends_with_a_picture_stops_no_plan(recipe_file: Path, tmp_path: Path) -> None:
    """From the file to the plan and the index, in processes of their own."""
    turns = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "so so"}]
    last = [*turns, {"role": "user", "content": "And this: <image>"}]
    write_files(tmp_path, {"1.png": png("red")})
    chats = write_lines(tmp_path / "m.jsonl", [*[{"messages": turns}] * 20, {"messages": last, "images": ["1.png"]}])
    data = tmp_path / "data"
    built = mm1("data", "build", "--from", "messages", chats, "--to", data / "chats", data=data)
    assert built.returncode == 0, built.stderr
    info = open_split(str(data / "chats" / "train")).info
    assert (info["read"], info["documents"], info["skipped"]) == (21, 21, {})
    assert info["changed"] == {"turns behind the last answer: cut off": {"count": 1, "examples": ["m.jsonl:21"]}}
    planned = mm1("data", "plan", chat_recipe(recipe_file), data=data, COLUMNS="200")
    assert planned.returncode == 0, planned.stderr
    assert "chats/train" in planned.stdout + planned.stderr
    write_corpus(
        data / "chats",
        {"train": [conversation(1), Document("x", "chat", (Text("so"),), {"turns": ["narrator"]})]},
        licence="none",
        sources=[],
    )
    planned = mm1("data", "plan", chat_recipe(recipe_file), data=data, COLUMNS="200")
    assert planned.returncode == 0, planned.stderr
    said = " ".join(planned.stderr.split())
    assert "1 of 2 conversations are left out, since they can't be laid out: its turns must name one of" in said
    assert "for example 'x'" in said
