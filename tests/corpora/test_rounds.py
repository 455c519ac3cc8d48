"""Conversations whose rounds follow one convention."""

from __future__ import annotations

from pathlib import Path

import pytest

from mm1.corpora import build_corpus
from mm1.corpora.conventions import CONVENTIONS, Convention
from mm1.corpora.dialogue import Turn, dialogue
from mm1.corpora.easy_vqa import COLORS, SHAPES
from mm1.corpora.pages import OPENINGS
from mm1.corpora.rounds import FRAMES, HELD_OUT, PHRASES, SEPARATOR, followed
from mm1.data.corpus import open_split
from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.prompts import PromptStyle, build_prompt
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import load_task
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from tests.corpora.fake_sources import put_easy_vqa, put_openmoji

FOLLOWED = followed(["{}", *FRAMES])
Round = tuple[list[Image], list[str], Text]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with rounds and pages, from small stand-ins of the packages."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MM1_DATA", str(folder))
        put_easy_vqa(folder / "downloads", train=60, test=96)
        put_openmoji(folder / "downloads")
        build_corpus("easy-vqa")
        build_corpus("rounds", count=200)
        build_corpus("pages", count=1, heldout=18, shots=8)
    return folder


@pytest.fixture
def conversations(data: Path, monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    monkeypatch.setenv("MM1_DATA", str(data))
    return list(open_split("rounds/train"))


def rounds(document: Document) -> list[Round]:
    """Return the pictures, the user's texts and the answer of every round."""
    found: list[Round] = []
    images: list[Image] = []
    texts: list[str] = []
    for part, role in zip(document.parts, document.meta["turns"], strict=True):
        if isinstance(part, Image):
            images.append(part)
        elif role == "user":
            texts.append(part.text)
        else:
            found.append((images, texts, part))
            images, texts = [], []
    return found


def sayings(convention: Convention) -> tuple[str, ...]:
    return tuple(convention.phrase(color, shape) for color in COLORS for shape in SHAPES)


def test_every_conversation_follows_one_convention(conversations: list[Document]) -> None:
    captions = open_split("easy-vqa/train-captions")
    told = {document.images[0].data: (document.meta["color"], document.meta["shape"]) for document in captions}
    phrases = {convention.name: convention.phrase for convention in FOLLOWED}
    phrases["caption"] = lambda color, shape: f"a {color} {shape}"
    for document in conversations:
        phrase = phrases[document.meta["convention"]]
        for images, _, answer in rounds(document):
            assert len(images) == document.meta["pictures_a_turn"]
            assert answer.text == SEPARATOR.join(phrase(*told[image.data]) for image in images)
        assert (len(rounds(document)) == 1) == (document.meta["convention"] == "caption")
    assert {len(rounds(document)) for document in conversations} == set(range(1, 10))
    assert {document.meta["pictures_a_turn"] for document in conversations} == {1, 2, 3}


def test_only_the_first_of_several_answers_is_no_target(conversations: list[Document]) -> None:
    for document in conversations:
        first, *others = [answer.target for _, _, answer in rounds(document)]
        assert first == (not others)
        assert all(others)


def test_conventions_are_held_out() -> None:
    """By what they say, whatever a convention is put together from."""
    said = [sayings(convention) for convention in FOLLOWED]
    assert len(set(said)) == len(said) == 250
    of_pages = {convention.name: sayings(convention) for convention in CONVENTIONS}
    assert {name for name, words in of_pages.items() if words not in said} == set(HELD_OUT)
    assert len(HELD_OUT) == len(CONVENTIONS) // 3


def test_what_the_user_says_does_not_tell_the_convention(conversations: list[Document]) -> None:
    said = {text for document in conversations for _, texts, _ in rounds(document) for text in texts}
    assert set(PHRASES) < said <= {*OPENINGS, *PHRASES}
    for document in conversations:
        (_, first, _), *others = rounds(document)
        opening = first[:1] if first and first[0] in OPENINGS else []
        assert {(*opening, *texts) for _, texts, _ in others} <= {tuple(first)}
    words = {word for text in said for word in text.lower().replace(".", "").split()}
    assert not words & {*COLORS, *SHAPES}


def test_few_shot_prompts_are_laid_out_as_training(conversations: list[Document]) -> None:
    """Token by token: a prompt of pages in a conversation is what training on its rounds showed."""
    tokenizer = train_tokenizer([convention.phrase("red", "circle") for convention in CONVENTIONS] * 3, 400)
    processor = build_processor(tokenizer, 64, 4, chat_template=default_chat_template())
    task = load_task("pages")
    items, shots = open_items(task.data), open_items(task.pool)
    query, *before = [items[0], *(shots[row] for row in range(4))]
    prompt = processor.encode(build_prompt(task, query, before, PromptStyle(chat=True)), close=False)
    turns: list[Turn] = []
    for item in (*before, query):
        turns += [("user", item.images), ("assistant", [item.answers[0]])]
    as_trained = dialogue("trained", turns)
    alone = next(d for d in conversations if len(d.parts) == 10 and d.meta["pictures_a_turn"] == 1)
    assert [type(part) for part in alone.parts] == [type(part) for part in as_trained.parts]
    assert alone.meta["turns"] == as_trained.meta["turns"]
    trained = processor.encode(as_trained)
    length = len(prompt.input_ids)
    assert trained.input_ids[:length].tolist() == prompt.input_ids.tolist()
    assert trained.target[length:].all()
    assert tokenizer.decode(trained.input_ids[length:]) == f" {query.answers[0]}<eos>"


@pytest.mark.parametrize("options", [{"count": 0}, {"several": 1.5}])
def test_impossible_options(options: dict, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MM1_DATA", str(data))
    with pytest.raises(UserError, match="options of corpus rounds: set count"):
        build_corpus("rounds", **options)
