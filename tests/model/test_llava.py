"""LLaVA's format: logits equal there and back, and what is not a LLaVA is refused."""

from __future__ import annotations

import pytest
import torch
from transformers import (
    Dinov2WithRegistersConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
)

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.llava import from_llava, to_llava

from .builders import IMAGE, sample, tiny_config, tiny_model
from .test_contract import left_padded

MLP = {"connector": "mlp", "image_seq_length": 16, "connector_hidden_size": None, "vision_final_norm": False}
SIGLIP = SiglipVisionConfig(
    image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32
)
BATCH = left_padded([sample("i3", 1, 16), sample("2i1i4", 2, 16), sample("5", 3, 16)])


@pytest.mark.parametrize(
    "changes",
    [{}, {"vision_feature_layer": -2}, {"vision_config": SIGLIP, "vision_feature_layer": -2}],
    ids=["clip", "clip, layer -2", "siglip, layer -2"],
)
@pytest.mark.parametrize("tied", [False, True])
def test_logits_are_equal_in_llava_and_back(changes, tied, tmp_path):
    text = tiny_config().text_config
    text.tie_word_embeddings = tied
    model = tiny_model(text_config=text, **(MLP | changes))
    wanted = model(**BATCH).logits
    to_llava(model).save_pretrained(tmp_path)
    llava = LlavaForConditionalGeneration.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(llava(**BATCH).logits, wanted, atol=1e-4, rtol=0)
    back = from_llava(llava)
    assert isinstance(back, MM1ForConditionalGeneration)
    torch.testing.assert_close(back(**BATCH).logits, wanted, atol=1e-4, rtol=0)
    settings = {"max_new_tokens": 5, "do_sample": False}
    assert torch.equal(back.generate(**BATCH, **settings), model.generate(**BATCH, **settings))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"connector": "average_pool", "image_seq_length": 4}, "its connector is average_pool, not mlp"),
        ({"connector_mlp_depth": 3}, "3 layers, not 2"),
        ({"connector_hidden_size": 24}, "24 wide inside, not 32"),
        ({"moe_num_experts": 4}, "sparse"),
        ({"vision_final_norm": True}, "normalises"),
        ({"vision_config": SIGLIP}, "normalises"),
        (
            {
                "vision_config": Dinov2WithRegistersConfig(
                    image_size=16, patch_size=4, hidden_size=16, num_hidden_layers=2, num_attention_heads=2
                ),
                "vision_feature_layer": -2,
            },
            "can't read a dinov2_with_registers",
        ),
    ],
)
def test_what_is_no_llava_is_not_exported(changes, message):
    with pytest.raises(UserError, match=message):
        to_llava(tiny_model(**(MLP | changes)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vision_feature_select_strategy": "full"}, "keeps all of the tower's tokens"),
        ({"vision_feature_layer": [-2, -1]}, "several layers"),
        ({"multimodal_projector_bias": False}, "no bias"),
        ({"vision_config": SIGLIP.to_dict(), "vision_feature_select_strategy": "full"}, "before its norm"),
    ],
)
def test_what_mm1_is_not_is_not_imported(changes, message):
    ours = tiny_config()
    settings = {
        "vision_config": ours.vision_config.to_dict(),
        "text_config": ours.text_config.to_dict(),
        "image_token_index": IMAGE,
        "vision_feature_layer": -1,
    }
    llava = LlavaForConditionalGeneration(LlavaConfig(**(settings | changes)))
    with pytest.raises(UserError, match=message):
        from_llava(llava)
