"""A model from scratch learns to name colours through every connector, and through experts."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mm1.model import build_model

from .builders import IMAGE, Sample, pack, tiny_recipe

COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0]])
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "average_pool": {},
    "attention_pool": {"connector": {"kind": "attention_pool"}},
    "c_abstractor": {"connector": {"kind": "c_abstractor", "depth": 1, "hidden_size": 32}},
    "mlp": {"connector": {"kind": "mlp", "num_tokens": 16}},
    "sparse": {"language_model": {"num_experts": 4}},
}


def coloured(colour: int, tokens: int) -> Sample:
    """An image of one colour with a little noise, then the colour's token."""
    image = COLOURS[colour][:, None, None] + 0.1 * torch.randn(3, 16, 16)
    ids = [1, *[IMAGE] * tokens, 10 + colour]
    return Sample(ids, image[None], [False] * (tokens + 1) + [True])


@pytest.mark.parametrize("variant", VARIANTS)
def test_colours_are_learned_from_pixels(variant):
    recipe = tiny_recipe(vision={"hidden_size": 32}, **VARIANTS[variant])
    torch.manual_seed(0)
    model = build_model(recipe, vocab_size=32, image_token_id=IMAGE, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    tokens = model.config.image_seq_length
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(60):
        rows = [[coloured(int(c), tokens) for c in torch.randint(0, 4, (4,))] for _ in range(4)]
        model(**pack(rows)).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    for colour in range(4):
        document = coloured(colour, tokens)
        prompt = torch.tensor([document.ids[:-1]])
        word = model.generate(prompt, pixel_values=document.images, max_new_tokens=1, do_sample=False)[0, -1]
        assert word == 10 + colour
