"""Mistakes in a call of the processor are one sentence, and no picture is shown with another text than its own."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image as PILImage

from mm1.errors import UserValueError
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from tests.processing.sample_tokenizers import own

RED, BLUE, GREEN = (PILImage.new("RGB", (20, 12), colour) for colour in ("red", "blue", "green"))


@pytest.fixture(scope="module")
def processor() -> MM1Processor:
    return build_processor(own(), 16, 4, chat_template=default_chat_template())


@pytest.mark.parametrize(
    ("text", "images", "message"),
    [
        (["<image><image> a", "b"], [[RED], [BLUE]], r"text\[0\] has 2 x <image>, and images\[0\] 1 pictures"),
        (["a", "<image> b"], [[RED], []], r"text\[0\] has 0 x <image>, and images\[0\] 1"),
        (("<image>", "a<image><image>"), ((RED, BLUE), (GREEN,)), r"text\[0\] has 1 x"),
        (["<image><image>", "<image>"], [[RED, BLUE], GREEN], "one flat list of pictures, or one list"),
        ("<image>", [[[RED]]], "one flat list of pictures, or one list"),
        (["<image><image>", "<image>"], [[RED], [BLUE], [GREEN]], "has 3 lists, and `text` 2 texts"),
        (["<image>", "<image>", "<image>"], [[RED], [BLUE, GREEN]], "has 2 lists, and `text` 3 texts"),
    ],
)
def test_pictures_of_another_text(processor: MM1Processor, text: Any, images: Any, message: str) -> None:
    with pytest.raises(UserValueError, match=message):
        processor(text=text, images=images)


@pytest.mark.parametrize("images", [[RED, BLUE, GREEN], [[RED, BLUE], [], [GREEN]], [[RED, BLUE, GREEN]]])
def test_pictures_of_their_texts(processor: MM1Processor, images: Any) -> None:
    made = processor(text=["<image> a <image>", "b", "<image>"], images=images)
    assert [ids.count(processor.image_token_id) for ids in made["input_ids"]] == [8, 0, 4]


def test_lists_for_one_text(processor: MM1Processor) -> None:
    assert len(processor(text="<image><image>", images=[[RED], [BLUE]])["pixel_values"]) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"text": "a", "videos": ["film.mp4"]}, "`videos`: the model takes texts and pictures alone"),
        ({"text": "a", "audio": [[0.0]]}, "`audio`: the model takes"),
        ({"text": []}, "`text` is an empty list"),
        ({"text": RED, "images": "a <image>"}, "is a Image: name both arguments"),
        ({"text": 5}, "must be a string or list of strings"),
        ({"text": [None]}, "must be a string or list of strings"),
    ],
)
def test_what_is_not_taken(processor: MM1Processor, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserValueError, match=message):
        processor(**given)


def test_empty_lists_of_what_is_not_taken(processor: MM1Processor) -> None:
    assert processor(text="a", videos=[], audio=None)["input_ids"] == processor(text="a")["input_ids"]


@pytest.mark.parametrize("tokenize", [False, True])
@pytest.mark.parametrize(
    ("conversation", "message"),
    [
        ([], "has no messages"),
        ("What is this?", "has no messages"),
        ({"role": "user", "content": "a"}, "has no messages"),
        ([{"role": "user", "content": [{"type": "video", "video": "film.mp4"}]}], "a part of type 'video'"),
        ([[{"role": "user", "content": [{"type": "audio", "audio": "a.wav"}]}]], "a part of type 'audio'"),
    ],
)
def test_conversations_that_are_none(processor: MM1Processor, conversation: Any, message: str, tokenize: bool) -> None:
    with pytest.raises(UserValueError, match=message):
        processor.apply_chat_template(conversation, tokenize=tokenize, return_dict=tokenize)
