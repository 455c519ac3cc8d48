"""How large a model is, by part."""

from __future__ import annotations

from mm1.model.modeling import MM1ForConditionalGeneration


def parameters_by_part(model: MM1ForConditionalGeneration) -> dict[str, int]:
    """Count parameters: `vision`, `connector`, `language_model` (without embeddings), `embeddings`.

    Tied embeddings count once. The four add up to all of the model's parameters.
    """
    inner = model.model
    embeddings = {p for m in (inner.get_input_embeddings(), model.lm_head) for p in m.parameters()}
    decoder = set(inner.language_model.parameters()) - embeddings
    return {
        "vision": sum(p.numel() for p in inner.vision_tower.parameters()),
        "connector": sum(p.numel() for p in inner.connector.parameters()),
        "language_model": sum(p.numel() for p in decoder),
        "embeddings": sum(p.numel() for p in embeddings),
    }


def non_embedding_parameters(model: MM1ForConditionalGeneration) -> int:
    """Count the decoder's parameters without embeddings: N of the learning-rate law (paper sec. 3.4)."""
    return parameters_by_part(model)["language_model"]
