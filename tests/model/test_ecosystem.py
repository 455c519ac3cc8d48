"""What others build on a `transformers` model: the pipeline, LoRA."""

from __future__ import annotations

import copy

import pytest
import torch
from PIL import Image as PILImage
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline

from mm1.model import build_model
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer

from .builders import pack, sample, tiny_model, tiny_recipe


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder with its processor, as a run writes it."""
    place = tmp_path_factory.mktemp("model")
    tokenizer = train_tokenizer(["a red circle", "a blue square"] * 20, 400)
    processor = build_processor(tokenizer, image_size=16, tokens_per_image=4)
    model = build_model(
        tiny_recipe(),
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model.save_pretrained(place)
    processor.save_pretrained(place)
    return place


def test_the_pipeline_generates_what_the_model_generates(folder):
    pictures = [PILImage.new("RGB", (20, 20), colour) for colour in ("red", "blue")]
    texts = ["<image> a", "<image> a red"]
    settings = {"max_new_tokens": 5, "do_sample": False}
    pipe = pipeline("image-text-to-text", model=str(folder), processor=AutoProcessor.from_pretrained(folder))
    model = AutoModelForImageTextToText.from_pretrained(folder).eval()
    processor = AutoProcessor.from_pretrained(folder)
    for text, picture in zip(texts, pictures, strict=True):
        (told,) = pipe(text=text, images=[picture], generate_kwargs=settings, return_full_text=False)
        inputs = processor(text=text, images=[picture], return_tensors="pt")
        words = model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
        wanted = processor.decode(words, skip_special_tokens=True)
        assert told["generated_text"] == wanted
        assert len(words) > 0


def test_lora_on_the_decoder_learns_and_merges():
    peft = pytest.importorskip("peft")
    model = tiny_model()
    batch = pack([[sample("i5", 1), sample("9", 2)]])
    before = model(**batch).logits
    decoder_only = r".*language_model.*\.(q_proj|v_proj)"
    adapted = peft.get_peft_model(copy.deepcopy(model), peft.LoraConfig(r=2, target_modules=decoder_only))
    torch.testing.assert_close(adapted(**batch).logits, before)
    trained = [n for n, p in adapted.named_parameters() if p.requires_grad]
    assert len(trained) == 8
    assert all("language_model" in n for n in trained)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    for _ in range(2):
        adapted(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    after = adapted(**batch).logits
    assert (after - before).abs().max() > 1e-3
    torch.testing.assert_close(adapted.merge_and_unload()(**batch).logits, after, atol=1e-4, rtol=1e-4)
