"""One document, many doors: training, evaluation, processor, chat template and pipeline give the same ids."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage
from transformers import pipeline
from transformers.utils.chat_template_utils import Chat

from mm1.document import Document, Image, Part, Text
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.recipe import ModelRecipe
from tests.model.saved.make_saved import CHATML
from tests.processing.sample_templates import BRACKETS, DEFAULT_SYSTEM, HEADERS, INST, TURNS
from tests.processing.sample_tokenizers import marked, own, sentencepiece, with_rule, without_bos

TOKENIZERS: dict[str, Callable[[Path], Any]] = {
    "own": lambda folder: own(),
    "marked": lambda folder: marked(),
    "with BOS": lambda folder: with_rule("<bos> $A", folder),
    "with BOS and EOS": lambda folder: with_rule("<bos> $A <eos>", folder),
    "without BOS": without_bos,
    "that begins with a space": sentencepiece,
    "that begins with a space and has the mark": lambda folder: sentencepiece(folder, "<image>"),
}
TEMPLATES = {"package": default_chat_template(), "brackets": BRACKETS, "inst": INST}
MARKED = {"chatml": CHATML, "default system": DEFAULT_SYSTEM, "headers": HEADERS, "turns": TURNS}

PICTURES = [PILImage.new("RGB", (16, 12), colour) for colour in ("red", "blue")]


def image(picture: PILImage.Image) -> Image:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return Image(stream.getvalue())


ONE, TWO = map(image, PICTURES)
PROMPTS = [
    (Document("p", "caption", (ONE, Text(" a red bus"))), "<image> a red bus", PICTURES[:1]),
    (Document("p", "caption", (ONE, Text("a red bus"))), "<image>a red bus", PICTURES[:1]),
    (Document("p", "text", (Text("a red bus"),)), "a red bus", []),
    (Document("p", "text", (Text(" a red bus"),)), " a red bus", []),
    (Document("p", "interleaved", (Text("a"), ONE, Text(" red\nb"), TWO)), "a<image> red\nb<image>", PICTURES),
    (Document("p", "interleaved", (ONE, TWO, Text(" bus"))), "<image><image> bus", PICTURES),
]


def tiny(processor: MM1Processor) -> MM1ForConditionalGeneration:
    recipe = ModelRecipe.model_validate(
        {
            "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_layers": 1, "num_heads": 2},
            "connector": {"kind": "average_pool", "num_tokens": 4},
            "language_model": {"hidden_size": 8, "num_layers": 1, "num_heads": 2},
        }
    )
    tokenizer = processor.tokenizer
    return build_model(
        recipe,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def evaluated(processor: MM1Processor, model: Any, document: Document) -> list[int]:
    """Return the ids that evaluation gives the model."""
    seen: list[torch.Tensor] = []
    generator = MM1Generator(model, processor)
    embeddings = model.get_input_embeddings()
    with_hook = embeddings.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    generator.generate([document], max_new_tokens=1, stop=[])
    with_hook.remove()
    return torch.cat(seen, dim=1)[0].tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_prompt_has_the_same_ids_whichever_way_it_is_made(name: str, tmp_path: Path) -> None:
    processor = build_processor(TOKENIZERS[name](tmp_path), 16, 4)
    model = tiny(processor)
    bos = processor.tokenizer.bos_token
    pipe = pipeline("image-text-to-text", model=model, processor=processor, device="cpu")
    loaded = saved_and_loaded(processor, tmp_path)
    for document, text, pictures in PROMPTS:
        right = processor.encode(document, close=False).input_ids.tolist()
        whole = processor.encode(document).input_ids.tolist()
        assert whole[: len(right)] == right
        assert evaluated(processor, model, document) == right
        for one in (processor, loaded):
            assert one(text=text, images=pictures or None)["input_ids"] == [right], text
            assert one(text=[text], images=[pictures])["input_ids"] == [right]
            assert one(text=bos + text, images=pictures or None)["input_ids"] == [right]
            bare = one(text=text, images=pictures or None, add_special_tokens=False)["input_ids"]
            assert bare == [right[1:]]
            options = {"text_kwargs": {"add_special_tokens": False}}
            assert one(text=text, images=pictures or None, **options)["input_ids"] == bare
        if pictures:
            assert pipe.preprocess({"text": text, "images": pictures})["input_ids"][0].tolist() == right
        else:
            assert pipe.preprocess(text)["input_ids"][0].tolist() == right
            assert loaded.tokenizer(text)["input_ids"] == right


PAIRS = [(name, template) for name in TOKENIZERS for template in TEMPLATES]
PAIRS += [("marked", template) for template in MARKED]


@pytest.mark.parametrize(("name", "template"), PAIRS)
def test_a_conversation_has_the_same_ids_whichever_way_it_is_made(name: str, template: str, tmp_path: Path) -> None:
    processor = build_processor(TOKENIZERS[name](tmp_path), 16, 4, chat_template=(TEMPLATES | MARKED)[template])
    model = tiny(processor)
    pipe = pipeline("image-text-to-text", model=model, processor=processor, device="cpu")
    loaded = saved_and_loaded(processor, tmp_path)
    for pictures in ([], PICTURES[:1], PICTURES):
        asked: tuple[Part, ...] = (*map(image, pictures), Text("a red bus?", target=False))
        question = Document("q", "chat", asked, {"turns": ["user"] * len(asked)})
        answered = Document("q", "chat", (*asked, Text("two")), {"turns": ["user"] * len(asked) + ["assistant"]})
        shown: list[Any] = [{"type": "image", "image": picture} for picture in pictures]
        messages: list[Any] = [{"role": "user", "content": [*shown, {"type": "text", "text": "a red bus?"}]}]
        right = processor.encode(question, close=False).input_ids.tolist()
        assert evaluated(processor, model, question) == right
        for one in (processor, loaded):
            made = one.apply_chat_template(messages, tokenize=True, return_dict=True, add_generation_prompt=True)
            assert made["input_ids"] == [right]
            text = one.apply_chat_template(messages, add_generation_prompt=True)
            assert one(text=text, images=pictures or None)["input_ids"] == [right], "made in two steps"
        chat: Any = Chat
        assert pipe.preprocess(chat(messages))["input_ids"][0].tolist() == right
        messages.append({"role": "assistant", "content": [{"type": "text", "text": "two"}]})
        right = processor.encode(answered).input_ids.tolist()
        assert loaded.apply_chat_template(messages, tokenize=True) == [right]


def saved_and_loaded(processor: MM1Processor, folder: Path) -> Any:
    processor.save_pretrained(folder / "saved")
    return MM1Processor.from_pretrained(folder / "saved")


def test_rows_with_and_without_bos_are_batched(tmp_path: Path) -> None:
    processor = build_processor(own(), 16, 4)
    one = processor(text="a red bus")["input_ids"][0]
    both = processor(text=["<bos>a red bus", "a red bus"])["input_ids"]
    assert both == [one, one]
    assert processor(text=["<bos>a red bus", "a red bus"], add_special_tokens=False)["input_ids"] == [one, one[1:]]


def test_what_is_no_text_is_an_error() -> None:
    with pytest.raises(ValueError, match="must be a string or list of strings"):
        build_processor(own(), 16, 4)(text=[["a"], ["b"]])
