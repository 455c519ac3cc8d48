"""`pipeline("image-text-to-text")` over many inputs gives what it gives for each alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image as PILImage
from transformers import pipeline

from mm1.model import build_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from mm1.recipe import ModelRecipe
from tests.processing.sample_tokenizers import own

RECIPE = ModelRecipe.model_validate(
    {
        "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "connector": {"kind": "average_pool", "num_tokens": 4},
        "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "tie_embeddings": False},
    }
)
NEW = {"max_new_tokens": 6, "return_full_text": False}


@pytest.fixture(scope="module", params=[TilingRule(), TilingRule(grid="1x2", fit="pad")])
def pipe(request: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A pipeline on a saved model whose answers depend on what it is asked."""
    folder = tmp_path_factory.mktemp("model")
    processor = build_processor(own(), 16, 4, chat_template=default_chat_template(), resolution=request.param)
    model = build_model(
        RECIPE,
        vocab_size=len(processor.tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        seed=3,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(6.0)  # fresh weights are so small that every answer is the same
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return pipeline("image-text-to-text", model=str(folder), device="cpu")


def chat(text: str, *pictures: PILImage.Image) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in pictures]
    return [{"role": "user", "content": [*shown, {"type": "text", "text": text}]}]


RED, BLUE, GREEN = (PILImage.new("RGB", (30, 20), colour) for colour in ("red", "blue", "green"))
CHATS = [
    chat("What is this?", RED),
    chat("a red bus on a street, or what is it?", BLUE),
    chat("two", GREEN, RED),
    chat("no picture at all"),
    chat("What is this?", BLUE),
]


def said(found: Any) -> list[str]:
    return [(one[0] if isinstance(one, list) else one)["generated_text"] for one in found]


@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_conversations(pipe: Any, batch_size: int, tmp_path: Path) -> None:
    alone = said([pipe(text=one, **NEW) for one in CHATS])
    assert len(set(alone)) > 1
    assert said(pipe(text=CHATS, batch_size=batch_size, **NEW)) == alone
    RED.save(tmp_path / "red.png")
    by_path = [
        {"role": "user", "content": [{"type": "image", "path": str(tmp_path / "red.png")}, CHATS[0][0]["content"][1]]}
    ]
    assert said(pipe(text=[by_path, *CHATS[1:]], batch_size=batch_size, **NEW)) == alone


def test_texts_with_pictures(pipe: Any) -> None:
    texts, pictures = ["<image> a", "<image> a red bus on a street"], [RED, BLUE]
    alone = said(pipe(text=text, images=[picture], **NEW) for text, picture in zip(texts, pictures, strict=True))
    assert said(pipe(text=texts, images=pictures, **NEW)) == alone


@pytest.mark.parametrize("batch_size", [1, 2])
def test_texts_alone(pipe: Any, batch_size: int) -> None:
    texts = ["a", "a red bus on a street"]
    alone = said(pipe(text=text, **NEW) for text in texts)
    assert said(pipe(text=texts, batch_size=batch_size, **NEW)) == alone
