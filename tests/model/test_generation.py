"""Generation as the library's own models do it: from embeddings, in chunks, with pictures encoded before."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import pad

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration

from .builders import IMAGE, Sample, sample, tiny_model

MIXED = [sample("i3", 1), sample("2i1i4", 2), sample("5", 3), sample("iii2", 4)]
NEW = 5
GREEDY = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
VARIANTS = {"dense": {}, "sparse": {"moe_num_experts": 4, "moe_every": 2}}


@pytest.fixture(params=VARIANTS)
def model(request: pytest.FixtureRequest) -> MM1ForConditionalGeneration:
    return tiny_model(**VARIANTS[request.param])


def left_padded(documents: list[Sample]) -> dict[str, torch.Tensor]:
    length = max(len(s.ids) for s in documents)
    ids = [[0] * (length - len(s.ids)) + s.ids for s in documents]
    mask = [[0] * (length - len(s.ids)) + [1] * len(s.ids) for s in documents]
    pictures = torch.cat([s.images for s in documents])
    return {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask), "pixel_values": pictures}


def new(output: torch.Tensor) -> list[list[int]]:
    return output[:, -NEW:].tolist()


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("way", ["embeddings", "embeddings and ids", "features in their places"])
def test_embeddings_continue_as_ids_do(model: Any, way: str, beams: int) -> None:
    batch = left_padded(MIXED)
    wanted = new(model.generate(**batch, num_beams=beams, **GREEDY))
    ids, pictures = batch.pop("input_ids"), batch.pop("pixel_values")
    embeds = model.get_input_embeddings()(ids)
    if way == "features in their places":
        embeds[ids == IMAGE] = model.get_image_features(pictures).flatten(0, 1)
    else:
        batch["pixel_values"] = pictures
    if way == "embeddings and ids":
        batch["input_ids"] = ids
    assert new(model.generate(inputs_embeds=embeds, **batch, num_beams=beams, **GREEDY)) == wanted


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_a_prompt_in_chunks_is_continued_as_a_whole(model: Any, size: int) -> None:
    batch = left_padded(MIXED)
    assert new(model.generate(**batch, prefill_chunk_size=size, **GREEDY)) == new(model.generate(**batch, **GREEDY))


@pytest.mark.parametrize("beams", [1, 2])
def test_pictures_can_be_encoded_before(model: Any, beams: int) -> None:
    batch = left_padded(MIXED)
    wanted = new(model.generate(**batch, num_beams=beams, **GREEDY))
    encoded: Any = model.get_image_features(batch.pop("pixel_values"))
    for features in (encoded.pooler_output, list(encoded.pooler_output)):
        encoded.pooler_output = features
        given = {"mm_encoder_outputs": {"image": encoded}}
        assert new(model.generate(**batch, **given, num_beams=beams, **GREEDY)) == wanted
    torch.testing.assert_close(model(**batch, **given).logits, model(**left_padded(MIXED)).logits)


def test_pictures_are_encoded_once(model: Any) -> None:
    calls = []
    model.model.vision_tower.register_forward_hook(lambda *_: calls.append(1))
    model.generate(**left_padded(MIXED), use_cache=False, num_beams=2, **GREEDY)
    assert len(calls) == 1


def test_pixels_and_encoded_pictures_are_not_given_together(model: Any) -> None:
    batch = left_padded(MIXED)
    encoded = {"image": model.get_image_features(batch["pixel_values"])}
    with pytest.raises(ValueError, match="one of the two"):
        model(**batch, mm_encoder_outputs=encoded)


@pytest.mark.parametrize("beams", [1, 2])
def test_pictures_after_a_cached_prefix_of_embeddings(model: Any, beams: int) -> None:
    """The rows' pictures are counted beyond the cache, in embeddings as in ids."""
    prefix, queries = sample("i3i2", 9), [sample("i4", 1), sample("2ii2", 2), sample("8", 3)]
    whole = left_padded([Sample(prefix.ids + q.ids, torch.cat([prefix.images, q.images])) for q in queries])
    wanted = new(model.generate(**whole, num_beams=beams, **GREEDY))
    with torch.no_grad():
        cache = model(torch.tensor([prefix.ids]), prefix.images, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(queries) * beams)
    rest = left_padded(queries)
    ids = torch.cat([torch.tensor([prefix.ids] * len(queries)), rest["input_ids"]], 1)
    mask = pad(rest["attention_mask"], (len(prefix.ids), 0), value=1)
    embeds = model.get_input_embeddings()(ids)
    found = model.generate(
        inputs_embeds=embeds,
        attention_mask=mask,
        pixel_values=rest["pixel_values"],
        past_key_values=cache,
        num_beams=beams,
        **GREEDY,
    )
    assert new(found) == wanted


@pytest.mark.parametrize("pictures", [None, torch.zeros(0, 3, 16, 16)])
def test_no_pictures(model: Any, pictures: Any) -> None:
    ids = torch.tensor([[1, 5, 6]])
    assert new(model.generate(ids, pixel_values=pictures, **GREEDY)) == new(model.generate(ids, **GREEDY))
    for given in ({"input_ids": ids}, {"inputs_embeds": model.get_input_embeddings()(ids)}):
        assert new(model.generate(**given, pixel_values=pictures, **GREEDY)) == new(model.generate(ids, **GREEDY))


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("pictures", [None, torch.zeros(0, 3, 16, 16)])
def test_an_image_token_without_a_picture_is_an_error(model: Any, embeddings: bool, pictures: Any) -> None:
    ids = torch.tensor([[1, IMAGE, IMAGE, 5]])
    given = {"inputs_embeds": model.get_input_embeddings()(ids)} if embeddings else {"input_ids": ids}
    for kind in (UserError, ValueError):
        with pytest.raises(kind, match=r"2 image tokens.*no image"):
            model.generate(**given, pixel_values=pictures, **GREEDY)
