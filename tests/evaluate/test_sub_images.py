"""Generation where pictures become several images."""

from dataclasses import replace

import pytest

from mm1.document import Document, Image
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule

from .test_generation import STOP, plain_greedy, prompts


@pytest.fixture(scope="module")
def cutting(processor):
    resolution = TilingRule(grid="2x2")
    return build_processor(processor.tokenizer, image_size=16, tokens_per_image=4, resolution=resolution)


def some_whole(prompt: Document) -> Document:
    """Take the first picture whole."""
    first = next((n for n, part in enumerate(prompt.parts) if isinstance(part, Image)), None)
    parts = (replace(p, whole=True) if isinstance(p, Image) and n == first else p for n, p in enumerate(prompt.parts))
    return replace(prompt, parts=tuple(parts))


def test_equals_a_plain_loop_whatever_is_shared_or_batched(model, cutting):
    asked = [some_whole(p) if n % 3 == 0 else p for n, p in enumerate(prompts(12))]
    expected = [plain_greedy(model, cutting, prompt, 5) for prompt in asked]
    assert len(set(expected)) > 3
    for batch_size, share in ((1, True), (3, False), (64, True)):
        generator = MM1Generator(model, cutting, batch_size=batch_size, share_prefixes=share)
        assert generator.generate(asked, max_new_tokens=5, stop=STOP) == expected


def test_a_picture_whole_and_cut_are_two(model, cutting):
    generator = MM1Generator(model, cutting)
    (prompt,) = prompts(1)
    one = generator.count_tokens(some_whole(prompt))
    five = generator.count_tokens(prompt)
    assert five - one == 4 * 4
    generator.generate([prompt, some_whole(prompt)], max_new_tokens=1, stop=STOP)
    assert generator.images_encoded == 2
