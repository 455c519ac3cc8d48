"""The usual shapes of vision transformers, by name."""

from __future__ import annotations

VIT_SIZES: dict[str, dict[str, int]] = {
    name: {"patch_size": patch, "hidden_size": width, "num_layers": layers, "num_heads": heads}
    for name, (patch, width, layers, heads) in {
        "vit-tiny": (16, 192, 12, 3),
        "vit-small": (16, 384, 12, 6),
        "vit-b-16": (16, 768, 12, 12),
        "vit-l-14": (14, 1024, 24, 16),
        "vit-h-14": (14, 1280, 32, 16),
    }.items()
}
"""Shapes of ViTs by name (arXiv 2010.11929 table 1; tiny and small: arXiv 2012.12877 table 1)."""
