"""What users of `transformers` expect of any model: saving, loading, generating, the Auto classes."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration

from .builders import IMAGE, Sample, embedding_matrix, pack, sample, tiny_config, tiny_model


def left_padded(documents: list[Sample]) -> dict[str, torch.Tensor]:
    length = max(len(s.ids) for s in documents)
    padded = [[0] * (length - len(s.ids)) + s.ids for s in documents]
    mask = [[0] * (length - len(s.ids)) + [1] * len(s.ids) for s in documents]
    images = torch.cat([s.images for s in documents])
    batch = {"input_ids": torch.tensor(padded), "attention_mask": torch.tensor(mask)}
    return batch | ({"pixel_values": images} if len(images) else {})


MIXED = [sample("i3", 1), sample("2i1i4", 2), sample("5", 3), sample("iii2", 4)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("shard", ["50GB", "20KB"])
def test_saved_and_loaded_is_bit_equal(tmp_path, tied, shard):
    config = tiny_config()
    config.text_config.tie_word_embeddings = tied
    model = tiny_model(text_config=config.text_config, connector="c_abstractor")
    model.save_pretrained(tmp_path, max_shard_size=shard)
    assert (len(list(tmp_path.glob("*.safetensors"))) > 1) == (shard == "20KB")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert isinstance(loaded, MM1ForConditionalGeneration)
    tensors = model.state_dict()
    assert tensors.keys() == loaded.state_dict().keys()
    assert all(torch.equal(value, tensors[name]) for name, value in loaded.state_dict().items())
    shared = loaded.lm_head.weight.data_ptr() == embedding_matrix(loaded).data_ptr()
    assert shared is tied
    # Weights mapped from a file may lie at odd addresses, where kernels round otherwise.
    for parameter in loaded.parameters():
        parameter.data = parameter.data.clone()
    batch = left_padded(MIXED)
    assert torch.equal(model(**batch).logits, loaded.eval()(**batch).logits)


def test_configuration_comes_back(tmp_path):
    config = tiny_config(connector="attention_pool", image_seq_length=5, vision_feature_layer=-2)
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "mm1"
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() | {"_name_or_path": ""} == config.to_dict()


@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": False},
        {"do_sample": False, "num_beams": 3},
        {"do_sample": True, "top_k": 20},
        {"do_sample": True, "num_return_sequences": 2},
        {"do_sample": False, "num_beams": 4, "num_return_sequences": 3},
    ],
)
def test_generation_is_equal_with_and_without_cache(options):
    model, batch = tiny_model(), left_padded(MIXED)
    words = []
    for use_cache in (True, False):
        torch.manual_seed(5)
        words.append(model.generate(**batch, max_new_tokens=6, min_new_tokens=6, use_cache=use_cache, **options))
    assert torch.equal(words[0], words[1])
    assert words[0].shape == (4 * options.get("num_return_sequences", 1), batch["input_ids"].shape[1] + 6)


@pytest.mark.parametrize("beams", [1, 3])
def test_a_row_generates_the_same_alone_and_in_a_mixed_batch(beams):
    model = tiny_model()
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams}
    together = model.generate(**left_padded(MIXED), **settings)[:, -6:]
    for row, document in zip(together, MIXED, strict=True):
        alone = model.generate(**left_padded([document]), **settings)[0, -6:]
        assert row.tolist() == alone.tolist()


@pytest.mark.parametrize("beams", [1, 2])
def test_a_prefix_is_encoded_once_for_several_continuations(beams):
    """The cache of a shared prefix with pictures, repeated for each query, gives what whole prompts give."""
    model = tiny_model()
    prefix, queries = sample("i3i2", 9), [sample("i4", 1), sample("i2", 2), sample("5", 3)]
    for query in queries:
        query.ids = query.ids[1:]
    whole = left_padded([Sample(prefix.ids + q.ids, torch.cat([prefix.images, q.images])) for q in queries])
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "num_beams": beams}
    wanted = model.generate(**whole, **settings)[:, -6:]
    with torch.no_grad():
        cache = model(torch.tensor([prefix.ids]), prefix.images, use_cache=True).past_key_values
    cache.batch_repeat_interleave(len(queries) * beams)
    rest = left_padded(queries)
    rows = len(queries)
    rest["input_ids"] = torch.cat([torch.tensor([prefix.ids] * rows), rest["input_ids"]], 1)
    rest["attention_mask"] = torch.cat([torch.ones(rows, len(prefix.ids)).long(), rest["attention_mask"]], 1)
    assert len(rest["pixel_values"]) == 2
    assert torch.equal(model.generate(**rest, past_key_values=cache, **settings)[:, -6:], wanted)


def test_a_static_cache_generates_the_same():
    model, batch = tiny_model(), left_padded(MIXED)
    settings = {"max_new_tokens": 6, "do_sample": False}
    static = model.generate(**batch, cache_implementation="static", **settings)
    assert torch.equal(static, model.generate(**batch, **settings))


def test_pictures_change_what_is_generated():
    model, batch = tiny_model(), left_padded(MIXED)
    other = batch | {"pixel_values": batch["pixel_values"].flip(0)}
    assert not torch.equal(model(**batch).logits, model(**other).logits)


def test_inputs_embeds_give_the_logits_of_input_ids():
    model, batch = tiny_model(), left_padded(MIXED)
    wanted = model(**batch).logits
    embeds = model.get_input_embeddings()(batch.pop("input_ids"))
    torch.testing.assert_close(model(inputs_embeds=embeds, **batch).logits, wanted)


def test_hidden_states_and_attentions_are_returned_when_asked_for():
    model, batch = tiny_model(), left_padded(MIXED)
    model.set_attn_implementation("eager")
    outputs = model(**batch, output_hidden_states=True, output_attentions=True)
    assert [h.shape[-1] for h in outputs.hidden_states] == [32, 32, 32]
    assert len(outputs.attentions) == 2
    assert outputs.image_hidden_states.shape == (6, 4, 32)


def test_gradient_checkpointing_gives_the_same_gradients():
    gradients = []
    for checkpointing in (False, True):
        model = tiny_model().train()
        if checkpointing:
            model.activation_checkpointing_enable()
        batch = left_padded(MIXED)
        model(**batch, labels=batch["input_ids"]).loss.backward()
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient)


@pytest.mark.parametrize("change", [-1, 1])
def test_too_few_or_too_many_pictures_are_an_error_with_both_numbers(change):
    model, batch = tiny_model(), left_padded(MIXED)
    pixels = batch["pixel_values"]
    batch["pixel_values"] = pixels[:-1] if change < 0 else torch.cat([pixels, pixels[:1]])
    with pytest.raises(UserError, match=f"24 image tokens.*{6 + change} images.*{4 * (6 + change)}"):
        model(**batch)


def test_images_that_go_nowhere_change_nothing_and_get_zero_gradients():
    """What a rank without images does, so that every rank runs the tower."""
    model = tiny_model().train()
    batch = pack([[sample("9", 1)]])
    wanted = model(**batch)
    batch |= {"pixel_values": torch.zeros(1, 3, 16, 16), "image_positions": torch.zeros(0, dtype=torch.long)}
    outputs = model(**batch)
    assert torch.equal(outputs.loss, wanted.loss)
    outputs.loss.backward()
    gradients = [p.grad for part in (model.model.vision_tower, model.model.connector) for p in part.parameters()]
    assert all(gradient is not None and not gradient.any() for gradient in gradients)


def test_a_picture_without_an_image_token_is_an_error():
    with pytest.raises(UserError, match=r"0 image tokens.*1 images"):
        tiny_model()(torch.tensor([[1, 5, 6]]), torch.zeros(1, 3, 16, 16))


def test_no_images_at_all_is_no_error():
    model, ids = tiny_model(), torch.tensor([[1, 5, 6]])
    assert torch.equal(model(ids, torch.zeros(0, 3, 16, 16)).logits, model(ids).logits)


def test_image_positions_without_images_are_an_error():
    batch = pack([[sample("i3", 1)]]) | {"pixel_values": None}
    with pytest.raises(UserError, match="4 image tokens in the text, but no image"):
        tiny_model()(**batch)


def test_the_vocabulary_can_be_resized_by_the_librarys_own_method():
    model = tiny_model()
    model.resize_token_embeddings(70, mean_resizing=False)
    assert model.config.text_config.vocab_size == 70
    assert model(**pack([[sample("i3", 1)]])).logits.shape == (3, 70)


def test_an_image_token_without_a_picture_is_an_error():
    with pytest.raises(UserError, match=r"1 image tokens.*no image"):
        tiny_model().generate(torch.tensor([[1, IMAGE, 5]]), max_new_tokens=1)


@pytest.mark.parametrize("new", [0, 1])
@pytest.mark.parametrize("way", ["forward", "generate", "samples"])
def test_an_image_given_twice_is_said_to_be_in_the_cache(new: int, way: str) -> None:
    """A conversation that goes on with the cache of its beginning gives new images only."""
    model, first = tiny_model(), sample("1i2", 1)
    with torch.no_grad():
        beginning = torch.tensor([first.ids])
        cache = model(input_ids=beginning, pixel_values=first.images, use_cache=True).past_key_values
        added = sample("i3" if new else "3", 2)
        rest = torch.tensor([added.ids])
        images = torch.cat([first.images, added.images])

        def go_on(pixels: torch.Tensor | None) -> torch.Tensor:
            if way == "forward":
                return model(input_ids=rest, pixel_values=pixels, past_key_values=cache).logits
            several = {"num_return_sequences": 2, "do_sample": True} if way == "samples" else {}
            whole = torch.cat([beginning, rest], dim=1)
            return model.generate(whole, pixel_values=pixels, past_key_values=cache, max_new_tokens=2, **several)

        with pytest.raises(UserError, match="don't give images again that are in the cache"):
            go_on(images)
        if way != "samples":  # the library repeats no cache
            assert len(go_on(added.images if new else None)) == 1
