"""A tiny random model, and a tiny corpus of coloured squares to ask it about."""

import io
from pathlib import Path

import pytest
from PIL import Image as PILImage

from mm1.data.corpus import write_corpus
from mm1.document import Document, Image, Text
from mm1.model import build_model
from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ModelRecipe

COLORS = ("red", "green", "blue", "yellow")
QUESTIONS = ("what color is it?", "is it red?", "which of the colors does this square have?")


def square(color: str, side: int = 16, dot: int = 0) -> Image:
    """A picture of one colour; `dot` makes it different from others of the colour."""
    picture = PILImage.new("RGB", (side, side), color)
    picture.putpixel((dot % side, dot // side), (255, 255, 255))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Image(buffer.getvalue())


def question(split: str, number: int, image: Image | None = None) -> Document:
    color = COLORS[number % len(COLORS)]
    asked = QUESTIONS[number % len(QUESTIONS)]
    answer = ("yes" if color == "red" else "no") if asked == "is it red?" else color
    parts = (
        image or square(color, dot=number),
        Text(f" Question: {asked} Short answer:", target=False),
        Text(f" {answer}"),
    )
    meta = {"question": asked, "answer": answer, "color": color, "half": number % 2}
    return Document(f"{split}/{number}", "interleaved", parts, meta)


@pytest.fixture
def squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data directory with the corpus `squares`: 20 test questions, 30 for shots."""
    monkeypatch.setenv("MM1_DATA", str(tmp_path / "data"))
    splits = {
        "test": [question("test", n) for n in range(20)],
        "shots": [question("shots", n) for n in range(100, 130)],
    }
    write_corpus(tmp_path / "data" / "squares", splits, licence="none needed", sources=["made here"])
    return tmp_path / "data"


@pytest.fixture(scope="session")
def processor():
    texts = [document.text for n in range(12) for document in [question("train", n)]] * 3
    return build_processor(train_tokenizer(texts, 320), image_size=16, tokens_per_image=4)


@pytest.fixture(scope="session")
def model(processor):
    recipe = ModelRecipe.model_validate(
        {
            "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
            "connector": {"kind": "average_pool", "num_tokens": 4},
            "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 2},
        }
    )
    tokenizer = processor.tokenizer
    model = build_model(
        recipe,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Small random weights answer every prompt alike; larger ones make the answer depend on all of it.
    for parameter in model.parameters():
        parameter.data.mul_(4.0)
    return model.eval()
