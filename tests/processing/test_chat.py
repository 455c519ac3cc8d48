"""The chat template: exact tokens, exactly what is learned, and the library's way to the same."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage
from transformers import PreTrainedTokenizerBase

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.processing.chat import chat_layout, default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from tests.processing.sample_tokenizers import sentencepiece

TEXTS = ["USER: What is this?\nASSISTANT: A red bus.", "SYSTEM: Be short.\nUSER: And the colour of it? two"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'][0]['text'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(TEXTS * 3, 330)


@pytest.fixture(scope="module")
def plain() -> MM1Processor:
    return build_processor(tokenizer(), 16, 2, chat_template=default_chat_template())


@pytest.fixture(scope="module")
def chatml() -> MM1Processor:
    own = tokenizer()
    own.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]})
    return build_processor(own, 16, 2, chat_template=CHATML)


def picture(colour: str = "red") -> PILImage.Image:
    return PILImage.new("RGB", (16, 16), colour)


def image(colour: str = "red") -> Image:
    stream = io.BytesIO()
    picture(colour).save(stream, "PNG")
    return Image(stream.getvalue())


def chat(*turns: tuple[str, list[str | Image]]) -> Document:
    parts, roles = [], []
    for role, content in turns:
        for part in content:
            parts.append(part if isinstance(part, Image) else Text(part, target=role == "assistant"))
            roles.append(role)
    return Document("c", "chat", tuple(parts), {"turns": roles})


def messages(document: Document) -> list[dict]:
    """The same conversation as users of `transformers` write it."""
    made: list[dict] = []
    for role, part in zip(document.meta["turns"], document.parts, strict=True):
        if not made or made[-1]["role"] != role:
            made.append({"role": role, "content": []})
        if isinstance(part, Image):
            opened = PILImage.open(io.BytesIO(part.read()))
            made[-1]["content"].append({"type": "image", "image": opened})
        else:
            made[-1]["content"].append({"type": "text", "text": part.text})
    return made


CONVERSATION = chat(
    ("system", ["Be short."]),
    ("user", [image(), "What is this?"]),
    ("assistant", ["A red bus."]),
    ("user", ["And", image("blue"), "this?"]),
    ("assistant", ["two"]),
)


def test_exact_tokens_and_exactly_what_is_learned(plain: MM1Processor) -> None:
    """Written out by hand: special tokens 1 <bos>, 2 <eos>, 3 <image>; two tokens an image."""
    encoded = plain.encode(CONVERSATION)

    def ids(text: str) -> list[int]:
        return plain.tokenizer(text, add_special_tokens=False)["input_ids"]

    expected: list[tuple[list[int], bool]] = [
        ([1], False),
        (ids("SYSTEM: Be short.\nUSER:"), False),
        ([3, 3], False),
        (ids(" What is this?\nASSISTANT:"), False),
        (ids(" A red bus."), True),
        ([2], True),
        (ids("USER: And"), False),
        ([3, 3], False),
        (ids(" this?\nASSISTANT:"), False),
        (ids(" two"), True),
        ([2], True),
    ]
    assert encoded.input_ids.tolist() == [token for some, _ in expected for token in some]
    assert encoded.target.tolist() == [target for some, target in expected for _ in some]
    # Pinned as numbers too, so that neither the template nor the tokenizer changes unseen.
    small = plain.encode(chat(("user", [image(), "two"]), ("assistant", ["two"])))
    assert small.input_ids.tolist() == PINNED
    assert np.flatnonzero(small.target).tolist() == PINNED_LEARNED


PINNED = [1, 264, 29, 3, 3, 299, 202, 312, 29, 299, 2]
PINNED_LEARNED = [9, 10]


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_the_library_makes_the_same_tokens(name: str, request: pytest.FixtureRequest) -> None:
    processor = request.getfixturevalue(name)
    for document in (CONVERSATION, chat(("user", ["no picture"]), ("assistant", ["A red bus."]))):
        theirs = processor.apply_chat_template(messages(document), tokenize=True, return_dict=True)
        encoded = processor.encode(document)
        assert len(theirs.get("pixel_values", [])) == len(document.images)
        assert theirs["input_ids"][0] == encoded.input_ids.tolist()
        masked = processor.apply_chat_template(
            messages(document), tokenize=True, return_dict=True, return_assistant_tokens_mask=True
        )
        assert list(map(bool, masked["assistant_masks"][0])) == encoded.target.tolist()


def test_strings_as_content_are_text(plain: MM1Processor) -> None:
    document = chat(("user", ["What is this?"]), ("assistant", ["two"]))
    strings = [{"role": "user", "content": "What is this?"}, {"role": "assistant", "content": "two"}]
    theirs = plain.apply_chat_template(strings, tokenize=True)
    assert theirs[0] == plain.encode(document).input_ids.tolist()


@pytest.mark.parametrize("name", ["plain", "chatml"])
def test_a_prompt_is_the_beginning_of_what_training_showed(name: str, request: pytest.FixtureRequest) -> None:
    processor = request.getfixturevalue(name)
    whole = processor.encode(CONVERSATION)
    *before, _ = CONVERSATION.parts
    asked = Document("c", "chat", tuple(before), {"turns": CONVERSATION.meta["turns"][:-1]})
    prompt = processor.encode(asked, close=False)
    assert whole.input_ids[: len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
    theirs = processor.apply_chat_template(messages(asked), tokenize=True, return_dict=True, add_generation_prompt=True)
    assert theirs["input_ids"][0] == prompt.input_ids.tolist()


def test_a_text_never_becomes_a_special_token(plain: MM1Processor) -> None:
    text = "<eos><image>\nASSISTANT: \ue0000\ue001 <bos>"
    encoded = plain.encode(chat(("user", [text]), ("assistant", ["two <eos>"])))
    assert (encoded.input_ids == 2).sum() == 1
    assert (encoded.input_ids == 3).sum() == 0
    assert text in plain.tokenizer.decode(encoded.input_ids)


@given(st.lists(st.text(min_size=1, max_size=30), min_size=2, max_size=6))
def test_learned_tokens_spell_the_answers(plain: MM1Processor, texts: list[str]) -> None:
    turns: list[tuple[str, list[str | Image]]] = [
        (("user", "assistant")[n % 2], [text]) for n, text in enumerate(texts)
    ]
    document = chat(*turns)
    encoded = plain.encode(document)
    answers = "".join(f" {text}<eos>" for text in texts[1::2])
    assert plain.tokenizer.decode(encoded.input_ids[encoded.target]) == answers.encode("utf-8", "replace").decode()


def test_an_answer_that_is_only_shown_is_not_learned(plain: MM1Processor) -> None:
    first = chat(("user", ["What?"]), ("assistant", ["two"]), ("user", ["What?"]), ("assistant", ["A red bus."]))
    parts = (first.parts[0], Text("two", target=False), *first.parts[2:])
    encoded = plain.encode(Document("c", "chat", parts, first.meta))
    assert plain.tokenizer.decode(encoded.input_ids[encoded.target]) == " A red bus.<eos>"


@pytest.mark.parametrize("answer", ["two", "\na red bus", "a red bus"])
def test_a_shown_answer_has_the_tokens_of_a_learned_one(answer: str, tmp_path: Path) -> None:
    """Few-shot prompts only show the answers that training learned; a tokenizer may join letters across the border."""
    for own in (tokenizer(), sentencepiece(tmp_path)):
        processor = build_processor(own, 16, 2, chat_template=CHATML.replace("<|im_end|>", own.eos_token))
        one_round: list[tuple[str, list[str | Image]]] = [("user", [image()]), ("assistant", [answer])]
        learned = chat(*one_round, *one_round, ("user", [image()]))
        parts = tuple(Text(part.text, target=False) if isinstance(part, Text) else part for part in learned.parts)
        shown = Document("c", "chat", parts, learned.meta)
        tokens, expected = (processor.encode(document, close=False).input_ids for document in (shown, learned))
        assert tokens.tolist() == expected.tolist()
        assert not processor.encode(shown).target.any()


def test_roles_follow_from_what_is_learned_where_none_are_named(plain: MM1Processor) -> None:
    named = chat(("user", [image(), "What?"]), ("assistant", ["two"]))
    unnamed = Document("c", "chat", named.parts)
    assert plain.encode(unnamed).input_ids.tolist() == plain.encode(named).input_ids.tolist()


def test_the_template_is_saved_with_the_processor(plain: MM1Processor, tmp_path: Path) -> None:
    plain.save_pretrained(tmp_path)
    loaded = MM1Processor.from_pretrained(tmp_path)
    assert loaded.chat_template == default_chat_template()
    assert loaded.encode(CONVERSATION).input_ids.tolist() == plain.encode(CONVERSATION).input_ids.tolist()


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0]['content'] }}", "doesn't say what the targets are"),
        ("{% generation %}{{ nothing.at.all }}{% endgeneration %}", "the chat template failed"),
        ("{{ bos_token }}{% generation %}{{ eos_token }}{% endgeneration %}", "drops or moves"),
    ],
)
def test_templates_that_will_not_do(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        chat_layout(template, tokenizer()).lay_out(CONVERSATION)


def test_conversations_need_a_template_and_known_roles(plain: MM1Processor) -> None:
    with pytest.raises(UserError, match="this model has no chat template"):
        build_processor(tokenizer(), 16, 2).encode(CONVERSATION)
    with pytest.raises(UserError, match="must name one of system, user, assistant for every part"):
        plain.encode(Document("c", "chat", CONVERSATION.parts, {"turns": ["user"]}))
