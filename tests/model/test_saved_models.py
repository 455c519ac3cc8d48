"""Models that mm1 0.1 saved (`saved/make_saved.py`) still load, and are right where that version was not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor

from mm1.document import Document, Image, Text
from mm1.evaluate.caption import caption_image, caption_prompt
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.plan.index import tokenizer_fingerprint
from mm1.processing.processor import MM1Processor
from tests.conftest import png
from tests.processing.behaviours import after_loading, behaviours

SAVED = Path(__file__).parent / "saved"
EXPECTED = json.loads((SAVED / "expected.json").read_text())
DOCUMENT = Document("d", "text", (Text(" a red bus"),))


@pytest.mark.parametrize("name", EXPECTED)
def test_a_saved_model_loads_and_answers_a_batch_as_each_alone(name: str) -> None:
    processor: Any = AutoProcessor.from_pretrained(SAVED / name)
    model = AutoModelForImageTextToText.from_pretrained(SAVED / name, dtype=torch.float32).eval()
    assert isinstance(processor, MM1Processor)
    assert processor.tokenizer.padding_side == "left"
    pictures = [PILImage.new("RGB", (9, 5), colour) for colour in ("red", "blue")]
    texts = ["<image> a", "<image> What is this on a street?"]
    inputs = processor(text=texts, images=[[picture] for picture in pictures], padding=True, return_tensors="pt")
    together = model(**inputs).logits[:, -1]
    for row, (text, picture) in enumerate(zip(texts, pictures, strict=True)):
        alone = model(**processor(text=text, images=picture, return_tensors="pt")).logits[0, -1]
        assert torch.allclose(together[row], alone, atol=1e-5)


@pytest.mark.parametrize("name", EXPECTED)
def test_tokens_are_what_they_were(name: str) -> None:
    """Runs that began with that version go on with the same indexes and the same plan."""
    processor = MM1Processor.from_pretrained(SAVED / name)
    assert processor.encode(DOCUMENT).input_ids.tolist() == EXPECTED[name]["ids"]
    assert processor(text=" a red bus")["input_ids"] == [EXPECTED[name]["ids"][:-1]]
    assert tokenizer_fingerprint(processor.tokenizer) == EXPECTED[name]["fingerprint"]
    layout = processor.chat_layout.fingerprint if processor.takes_turns and processor.chat_layout else None
    assert layout == EXPECTED[name]["layout"]


def test_saved_again_they_are_the_same(tmp_path: Path) -> None:
    folders = []
    for name in EXPECTED:
        folders.append(tmp_path / name)
        shutil.copytree(SAVED / name, folders[-1])
    before = after_loading(folders)
    again = after_loading([Path(f"{folder}-again") for folder in folders])
    assert before == [behaviours(AutoProcessor.from_pretrained(SAVED / name)) for name in EXPECTED]
    assert again == before


def test_a_template_that_is_only_the_decoders_takes_no_turns(tmp_path: Path) -> None:
    """That version saved a decoder's template with a model that was not trained with it."""
    (tmp_path / "red.png").write_bytes(png("red"))
    generator = load_generator(SAVED / "decoder")
    assert isinstance(generator, MM1Generator)
    assert not generator.takes_turns
    assert caption_prompt(generator, Image(png("red")), "p").kind == "caption"
    assert isinstance(caption_image(SAVED / "decoder", tmp_path / "red.png"), str)


def test_generation_of_a_chat_model_ends_where_its_template_does() -> None:
    generator = load_generator(SAVED / "chat")
    assert isinstance(generator, MM1Generator)
    assert generator.takes_turns
    end = generator.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert generator.model.generation_config.eos_token_id == [2, end]
