"""What vLLM's transformers backend, and SGLang's, ask of a model and a processor; neither runs without a GPU.

The calls are those of vllm/model_executor/models/transformers/{base,multimodal}.py, and of SGLang 0.5.23's
sglang/srt/{models/transformers,multimodal/processors/transformers_auto}.py.
"""

from __future__ import annotations

import random
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from PIL import Image as PILImage
from transformers import AttentionInterface, AutoModel

from mm1.model import MM1ForConditionalGeneration, MM1Model
from mm1.model.configuration import CONNECTORS
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from tests.processing.sample_tokenizers import own

from .builders import IMAGE, tiny_config, tiny_model

RULES = [TilingRule(), TilingRule(fit="pad", grid="dynamic", min_tiles=1, max_tiles=6), TilingRule(grid="2x2")]
IDS = [1, IMAGE, IMAGE, IMAGE, IMAGE, 9, 11, 5]


def sizes() -> list[tuple[int, int]]:
    """Thirty heights and widths, the same every time."""
    draw = random.Random(7)
    return [(draw.randint(1, 400), draw.randint(1, 400)) for _ in range(30)]


@pytest.mark.parametrize("rule", RULES)
def test_thirty_pictures_at_once(rule: TilingRule) -> None:
    """vLLM lays out a prompt by these counts alone, and cuts the pixels by them."""
    processor = build_processor(own(), 16, 4, resolution=rule)
    counts: Any = processor._get_num_multimodal_tokens(image_sizes=sizes())
    pictures = [PILImage.new("RGB", (width, height), (height % 256, 9, 40)) for height, width in sizes()]
    text = processor.image_token * len(pictures)
    found = processor(text=text, images=pictures, return_mm_token_type_ids=True, return_tensors="pt")
    is_picture = found["mm_token_type_ids"][0] == 1
    assert torch.equal(is_picture, found["input_ids"][0] == processor.image_token_id)
    assert sum(counts["num_image_tokens"]) == int(is_picture.sum())
    assert sum(counts["num_image_patches"]) == len(found["pixel_values"])
    start = 0
    for picture, tokens, images in zip(pictures, counts.num_image_tokens, counts.num_image_patches, strict=True):
        alone = processor(text=processor.image_token, images=[picture], return_tensors="pt")
        assert int((alone["input_ids"] == processor.image_token_id).sum()) == tokens
        assert torch.equal(alone["pixel_values"], found["pixel_values"][start : start + images])
        start += images


def test_the_largest_picture_has_a_size() -> None:
    """What vLLM reserves memory by: a picture of 10,000 x 10,000."""
    processor = build_processor(own(), 16, 4, resolution=RULES[1])
    largest: Any = ([10_000, 10_000],)  # a list, as vLLM gives it
    assert processor._get_num_multimodal_tokens(image_sizes=largest)["num_image_tokens"][0] == 5 * 4


def test_the_backend_takes_the_class() -> None:
    """Its check, and the order in which it goes through `auto_map`: a configuration before models, a model first."""
    config = tiny_config()
    assert not hasattr(transformers, "MM1ForConditionalGeneration")
    assert list(config.auto_map)[:2] == ["AutoConfig", "AutoModel"]
    for cls in (MM1Model, MM1ForConditionalGeneration):
        assert cls.is_backend_compatible()
    assert config != config.get_text_config()  # so the backend knows that there are pictures


@pytest.mark.parametrize("connector", sorted(CONNECTORS))
def test_image_features(connector: str) -> None:
    """As `embed_multimodal` takes and splits them, with whatever else it passes on."""
    config = tiny_config(connector=connector, image_seq_length=16 if connector == "mlp" else 4)
    model: Any = AutoModel.from_config(config).eval()
    pixels = torch.randn(5, 3, 16, 16)
    with torch.no_grad():
        found: Any = model.get_image_features(pixels, output_attentions=False)
        assert issubclass(type(found), dict)
        rows = found.pooler_output.view(-1, found.pooler_output.shape[-1])  # needs contiguous tokens
        one, four = torch.split(rows, [config.image_seq_length, 4 * config.image_seq_length])
        torch.testing.assert_close(one, model.get_image_features(pixels[:1]).pooler_output[0])
    assert len(four) == 4 * config.image_seq_length


def test_the_backend_s_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows end to end in one batch, attention by the backend's own function, hidden states as a tuple."""
    seen: list[int] = []

    def attention(module: Any, query: Any, key: Any, value: Any, mask: Any, scaling: Any = None, **kwargs: Any) -> Any:
        assert mask is None
        assert kwargs["attention_instances"][module.layer_idx] == "kv cache"
        seen.append(module.layer_idx)
        groups = query.shape[1] // key.shape[1]
        heads = [x.split([len(IDS), 3], dim=2) for x in (query, key, value)]
        rows = [
            F.scaled_dot_product_attention(
                q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1), scale=scaling, is_causal=True
            )
            for q, k, v in zip(*heads, strict=True)
        ]
        joined = torch.cat(rows, 2).transpose(1, 2)
        return joined.reshape(joined.shape[1], -1), None

    AttentionInterface.register("vllm", attention)
    whole = tiny_model()
    config = tiny_config()
    config.get_text_config()._attn_implementation = "vllm"
    model: Any = AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=True).eval()
    model.load_state_dict(whole.model.state_dict())
    pixels = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    first, second = torch.tensor([IDS]), torch.tensor([[1, 8, 6]])
    positions = torch.tensor([*range(len(IDS)), *range(3)])
    with torch.no_grad():
        ids = torch.cat([first, second], 1)[0]
        embeds = model.get_input_embeddings()(ids)
        embeds[ids == IMAGE] = model.get_image_features(pixels).pooler_output[0]
        hidden = model(
            input_ids=None,
            inputs_embeds=embeds[None],
            use_cache=False,
            position_ids=positions[None],
            attention_instances=dict.fromkeys(range(2), "kv cache"),
            return_dict=False,
        )[0][0, ...]
        logits = whole.lm_head(hidden)
        wanted = [whole(first, pixel_values=pixels).logits[0], whole(second).logits[0]]
    torch.testing.assert_close(logits, torch.cat(wanted))
    assert seen == [0, 1]
    # The names in the file of weights lead to the backend's own after its prefixes.
    assert {name.split(".")[0] for name in whole.state_dict()} == {"model", "lm_head"}


@pytest.mark.parametrize("rule", RULES)
def test_sglang_lays_out_a_prompt(rule: TilingRule) -> None:
    """It finds pictures by runs of the image token, and gives every run the rows of `get_image_features` in order."""
    config, processor = tiny_config(), build_processor(own(), 16, 4, resolution=rule)
    pictures = [PILImage.new("RGB", size, (9, 40, 90)) for size in ((30, 20), (16, 16), (70, 35))]
    text = f"one {processor.image_token} two {processor.image_token} three {processor.image_token} end"
    found = processor(text=text, images=pictures, return_tensors="pt")
    assert found["pixel_values"].ndim == 4  # five dimensions are padded by tiles
    assert config.image_token_id is not None
    ids = found["input_ids"].flatten()
    is_picture = ids == processor.image_token_id
    starts = (is_picture & ~torch.roll(is_picture, 1)).nonzero(as_tuple=True)[0]
    ends = (is_picture & ~torch.roll(is_picture, -1)).nonzero(as_tuple=True)[0]
    counts: Any = processor._get_num_multimodal_tokens(image_sizes=[picture.size[::-1] for picture in pictures])
    assert (ends - starts + 1).tolist() == list(counts.num_image_tokens)
    model: Any = AutoModel.from_config(config).eval()
    assert model._supports_attention_backend
    with torch.no_grad():
        features = model.get_image_features(pixel_values=found["pixel_values"]).pooler_output
    assert len(features.reshape(-1, features.shape[-1])) == int(is_picture.sum())


def test_the_entry_points_are_there() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for group in ("vllm.general_plugins", "lmms_eval.models", "lm_eval.models"):
        for place in project["entry-points"][group].values():
            assert place.startswith("mm1.")
    module, name = project["entry-points"]["vllm.general_plugins"]["mm1"].split(":")
    plugin = getattr(import_module(module), name)
    assert plugin() is None
    assert plugin() is None  # vLLM calls it in each of its processes, maybe twice
