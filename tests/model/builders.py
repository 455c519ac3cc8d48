"""Small models and batches for the tests."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import CLIPVisionConfig, LlamaConfig, PreTrainedConfig, PreTrainedModel

from mm1.model import MM1Config, MM1ForConditionalGeneration
from mm1.recipe import ModelRecipe

IMAGE = 3
VOCABULARY = 64


def tiny_config(**changes: Any) -> MM1Config:
    """A configuration of 16 patches, 4 tokens per image and two layers each."""
    vision: PreTrainedConfig = CLIPVisionConfig(
        image_size=16,
        patch_size=4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
    )
    text: PreTrainedConfig = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        max_position_embeddings=256,
        # Weights large enough that attention to the wrong document can't hide in rounding.
        initializer_range=0.2,
    )
    settings: dict[str, Any] = {
        "vision_config": vision,
        "text_config": text,
        "connector": "average_pool",
        "image_seq_length": 4,
        "connector_hidden_size": 24,
        "connector_depth": 1,
        "image_token_id": IMAGE,
        "vision_final_norm": True,
    }
    return MM1Config(**(settings | changes))


def tiny_model(seed: int = 0, **changes: Any) -> MM1ForConditionalGeneration:
    """A model of `tiny_config`, in evaluation mode."""
    torch.manual_seed(seed)
    return MM1ForConditionalGeneration(tiny_config(**changes)).eval()


def embedding_matrix(model: PreTrainedModel) -> torch.Tensor:
    """The decoder's token embedding `(V, D)`."""
    embedding = model.get_input_embeddings()
    assert isinstance(embedding, torch.nn.Embedding)
    return embedding.weight


def tiny_recipe(**changes: dict[str, Any]) -> ModelRecipe:
    """A recipe's model of 16 patches, 4 tokens per image and a decoder of two layers.

    Args:
        changes: Of the sections, key by key; a `language_model` with `from` gets no sizes.
    """
    pretrained = "from" in changes.get("language_model", {})
    content: dict[str, dict[str, Any]] = {
        "vision": {"image_size": 16, "patch_size": 4, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "connector": {"kind": "average_pool", "num_tokens": 4},
        "language_model": {} if pretrained else {"hidden_size": 32, "num_layers": 2, "num_heads": 4},
    }
    content |= {name: content.get(name, {}) | section for name, section in changes.items()}
    return ModelRecipe.model_validate(content)


@dataclass
class Sample:
    """One document: its ids with image tokens in place, its pictures, which tokens are learned."""

    ids: list[int]
    images: torch.Tensor
    target: list[bool] = field(default_factory=list)


def sample(pattern: str, seed: int, tokens_per_image: int = 4, size: int = 16) -> Sample:
    """A document from a pattern such as `"i3i2"`: an image, three words, an image, two words."""
    generator = torch.Generator().manual_seed(seed)
    ids = [1]
    for sign in pattern:
        if sign == "i":
            ids += [IMAGE] * tokens_per_image
        else:
            ids += torch.randint(4, VOCABULARY, (int(sign),), generator=generator).tolist()
    images = torch.randn(pattern.count("i"), 3, size, size, generator=generator)
    return Sample(ids, images, [token != IMAGE and n > 0 for n, token in enumerate(ids)])


def pack(rows: list[list[Sample]]) -> dict[str, Any]:
    """Pack documents into rows as the loader does: positions restart, padding stays at position 0."""
    length = max(sum(len(s.ids) for s in row) for row in rows)
    input_ids, positions, image, target, targets = [], [], [], [], []
    for b, row in enumerate(rows):
        ids: list[int] = []
        place: list[int] = []
        for s in row:
            start = b * length + len(ids)
            image += [start + n for n, token in enumerate(s.ids) if token == IMAGE]
            target += [start + n - 1 for n, wanted in enumerate(s.target) if wanted]
            targets += [token for token, wanted in zip(s.ids, s.target, strict=True) if wanted]
            ids += s.ids
            place += range(len(s.ids))
        padding = length - len(ids)
        input_ids.append(ids + [0] * padding)
        positions.append(place + [0] * padding)
    images = torch.cat([s.images for row in rows for s in row])
    return {
        "input_ids": torch.tensor(input_ids),
        "position_ids": torch.tensor(positions),
        "pixel_values": images if len(images) else None,
        "image_positions": torch.tensor(image, dtype=torch.long) if len(images) else None,
        "target_positions": torch.tensor(target),
        "target_ids": torch.tensor(targets),
    }


def image_tokens(model: MM1ForConditionalGeneration, pixel_values: torch.Tensor) -> torch.Tensor:
    """Return the tokens (N, T, D) that images become."""
    tokens = model.get_image_features(pixel_values).pooler_output
    assert tokens is not None
    return tokens
