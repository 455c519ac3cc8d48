"""The shapes of published decoders, by name."""

from __future__ import annotations

DECODER_SIZES: dict[str, dict[str, int]] = {
    name: {
        "hidden_size": width,
        "num_layers": layers,
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "intermediate_size": inner,
    }
    for name, (width, layers, heads, kv_heads, inner) in {
        "smollm2-135m": (576, 30, 9, 3, 1536),
        "smollm2-360m": (960, 32, 15, 5, 2560),
        "smollm2-1.7b": (2048, 24, 32, 32, 8192),
    }.items()
}
"""SmolLM2's (recalled from the configurations of HuggingFaceTB/SmolLM2-135M, -360M and -1.7B). Head and embeddings
share their weights. `mm1.model.shape` compares them with a folder's configuration where there is one."""

DECODER_VOCABULARIES = dict.fromkeys(DECODER_SIZES, 49_152)
"""Words of their tokenizers (recalled likewise), without `<image>`."""
