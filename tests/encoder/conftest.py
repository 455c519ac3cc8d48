"""A recipe for a tiny encoder on the small corpora."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

TINY = {
    "name": "tiny-encoder",
    "model": {
        "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "text": {"hidden_size": 16, "num_layers": 1, "num_heads": 2},
        "projection_size": 8,
    },
    "tokenizer": {"vocab_size": 320},
    "data": {
        "sequence_length": 12,
        "mixture": {"caption": {"weight": 1, "sources": [{"corpus": "captions/train"}]}},
    },
    "train": {
        "steps": 12,
        "batch_size": 8,
        "learning_rate": 0.001,
        "warmup_steps": 2,
        "log_every": 1,
        "checkpoint_every": 4,
        "dtype": "float32",
    },
}


@pytest.fixture
def encoder_recipe(tmp_path: Path) -> Path:
    """A recipe file of a tiny CLIP encoder, which trains in seconds."""
    file = tmp_path / "tiny-encoder.yaml"
    file.write_text(yaml.safe_dump(TINY))
    return file
