from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as PILImage

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.plan.index import tokenizer_fingerprint
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import load_tokenizer, train_tokenizer


@pytest.fixture(scope="module")
def processor() -> MM1Processor:
    tokenizer = train_tokenizer(["a red square, two blue circles\n"] * 3, 320)
    return build_processor(tokenizer, image_size=32, tokens_per_image=4)


def picture(seed: int = 0) -> Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    stream = io.BytesIO()
    PILImage.fromarray(pixels).save(stream, "PNG")
    return Image(stream.getvalue())


def test_tokens_of_a_document(processor: MM1Processor) -> None:
    document = Document("d", "caption", (picture(), Text(" Colour:", target=False), Text(" red\n")))
    encoded = processor.encode(document)
    prompt, answer = (
        processor.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (" Colour:", " red\n")
    )
    assert encoded.input_ids[5:-1].tolist() == prompt + answer
    assert encoded.input_ids[:5].tolist() == [1, 3, 3, 3, 3]
    assert encoded.input_ids[-1] == processor.tokenizer.eos_token_id
    assert processor.tokenizer.decode(encoded.input_ids[5:-1]) == " Colour: red\n"
    assert np.flatnonzero(encoded.target).tolist() == list(range(5 + len(prompt), len(encoded.input_ids)))
    assert encoded.image_starts.tolist() == [1]


def test_a_prompt_is_the_beginning_of_the_document_with_its_answer(processor: MM1Processor) -> None:
    """What evaluation asks is token for token what training showed."""
    shots = (picture(1), Text(" red\n"), picture(2), Text(" blue\n"), picture(3))
    prompt = processor.encode(Document("p", "interleaved", shots), close=False)
    page = processor.encode(Document("p", "interleaved", (*shots, Text(" red\n"))))
    assert np.array_equal(page.input_ids[: len(prompt.input_ids)], prompt.input_ids)


def test_text_never_becomes_a_special_token(processor: MM1Processor) -> None:
    text = " <image> <eos> ünïcödé \U0001f600"
    encoded = processor.encode(Document("d", "text", (Text(text),)))
    assert processor.image_token_id not in encoded.input_ids
    assert (encoded.input_ids == processor.tokenizer.eos_token_id).sum() == 1
    assert processor.tokenizer.decode(encoded.input_ids[1:-1]) == text


def test_eos_after_an_unlearned_text_is_not_learned(processor: MM1Processor) -> None:
    encoded = processor.encode(Document("d", "text", (Text("red", target=False),)))
    assert not encoded.target.any()


def test_pixels_equal_the_library_image_processors(processor: MM1Processor) -> None:
    image = picture()
    ours = processor.normalize(torch.from_numpy(processor.pixel_values([image])))
    theirs = processor(text=["<image>"], images=[PILImage.open(io.BytesIO(image.read()))], return_tensors="pt")
    assert torch.allclose(ours, theirs["pixel_values"], atol=1e-5)
    assert theirs["input_ids"].tolist() == [[1, 3, 3, 3, 3]]


def test_save_and_load(processor: MM1Processor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    loaded = MM1Processor.from_pretrained(tmp_path)
    document = Document("d", "caption", (picture(), Text(" a red square")))
    assert loaded.tokens_per_image == 4
    assert loaded.image_size == 32
    assert np.array_equal(loaded.encode(document).input_ids, processor.encode(document).input_ids)
    assert np.array_equal(loaded.pixel_values(document.images), processor.pixel_values(document.images))


def test_the_tokenizer_is_the_same_every_time(processor: MM1Processor, tmp_path: Path) -> None:
    again = train_tokenizer(["a red square, two blue circles\n"] * 3, 320)
    again.save_pretrained(tmp_path)
    loaded = load_tokenizer(tmp_path)
    assert loaded.get_vocab() == processor.tokenizer.get_vocab()
    assert tokenizer_fingerprint(loaded) == tokenizer_fingerprint(processor.tokenizer)


def test_a_folder_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere: no tokenizer could be loaded .there is no such folder"):
        load_tokenizer(tmp_path / "nowhere")
