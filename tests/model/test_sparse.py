"""Mixture of experts: against a plain loop over experts, and against the dense decoder it came from."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    LlamaConfig,
    Olmo2Config,
    Qwen2Config,
    Qwen3Config,
    SmolLM3Config,
)

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.model.sparse import SparseBlock, draw_experts, sparsify, upcycle

from .builders import VOCABULARY, pack, sample, tiny_config, tiny_model, tiny_recipe

MOE = {"moe_num_experts": 5, "moe_every": 2, "moe_top_k": 2}
ROWS = [[sample("i5", 1), sample("3i2i4", 2)], [sample("9", 3), sample("i1", 4)]]


def blocks(model):
    return [m for m in model.modules() if isinstance(m, SparseBlock)]


def reference(block: SparseBlock, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Every expert on every token, weighted: the output and the router's logits."""
    logits = tokens @ block.gate.weight.T
    probability = logits.softmax(-1)
    threshold = probability.sort(-1, descending=True).values[:, block.top_k - 1 : block.top_k]
    weight = probability * (probability >= threshold)
    weight = weight / weight.sum(-1, keepdim=True)
    out = torch.zeros_like(tokens)
    for expert in range(block.experts.num_experts):
        gate, up = (tokens @ block.experts.gate_up_proj[expert].T).chunk(2, -1)
        out = out + weight[:, expert : expert + 1] * ((F.silu(gate) * up) @ block.experts.down_proj[expert].T)
    return out, logits


@pytest.mark.parametrize("implementation", ["grouped_mm", "batched_mm", "eager"])
def test_block_and_its_gradients_are_the_dense_loops(implementation):
    model = tiny_model(moe_implementation=implementation, **MOE)
    (block,) = blocks(model)
    tokens = torch.randn(3, 7, 32, requires_grad=True)
    out = block(tokens)
    wanted, logits = reference(block, tokens.flatten(0, 1))
    torch.testing.assert_close(out.flatten(0, 1), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(block.routed[0], logits, atol=1e-5, rtol=1e-5)
    inputs = [tokens, *block.parameters()]
    direction = torch.randn_like(out)
    got = torch.autograd.grad((out * direction).sum(), inputs)
    want = torch.autograd.grad((wanted.view_as(out) * direction).sum(), inputs)
    for one, two in zip(got, want, strict=True):
        torch.testing.assert_close(one, two, atol=1e-4, rtol=1e-4)


def test_losses_and_their_gradients_are_the_formulas():
    model = tiny_model(**MOE, moe_balance_loss=0.3, moe_z_loss=0.05)
    (block,) = blocks(model)
    caught = []
    block.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    batch = pack(ROWS)
    routing = model(**batch).routing
    real = torch.tensor(
        [[n < sum(len(s.ids) for s in row) for n in range(batch["input_ids"].shape[1])] for row in ROWS]
    )
    assert not real.all()
    _, logits = reference(block, caught[0][real])
    first = F.one_hot(logits.argmax(-1), 5).float().mean(0)
    balance = 5 * (first * logits.softmax(-1).mean(0)).sum()
    z = logits.logsumexp(-1).square().mean()
    torch.testing.assert_close(routing.balance, balance)
    torch.testing.assert_close(routing.z, z)
    torch.testing.assert_close(routing.loss, 0.3 * balance + 0.05 * z)
    got = torch.autograd.grad(routing.loss, block.gate.weight, retain_graph=True)[0]
    want = torch.autograd.grad(0.3 * balance + 0.05 * z, block.gate.weight)[0]
    torch.testing.assert_close(got, want)


def test_load_adds_up_and_nothing_is_dropped():
    model = tiny_model(**MOE)
    routing = model(**pack(ROWS)).routing
    assert routing.load.shape == (1, 5)
    torch.testing.assert_close(routing.load.sum(1), torch.ones(1))
    even = tiny_model(**MOE)
    torch.nn.init.zeros_(blocks(even)[0].gate.weight)
    assert even(**pack(ROWS)).routing.z == pytest.approx(torch.tensor(5.0).log().item() ** 2, rel=1e-5)


@pytest.mark.parametrize("target", [True, False])
def test_the_loss_includes_the_routers(target):
    model = tiny_model(**MOE)
    batch = pack(ROWS)
    without = F.cross_entropy(model(**batch).logits, batch["target_ids"])
    if not target:
        labels = torch.full_like(batch["input_ids"], -100).flatten()
        labels[batch.pop("target_positions") + 1] = batch.pop("target_ids")
        batch["labels"] = labels.view_as(batch["input_ids"])
    outputs = model(**batch)
    torch.testing.assert_close(outputs.loss, without + outputs.routing.loss)


def test_padding_counts_in_no_loss_and_images_do():
    model = tiny_model(**MOE)
    short, long = sample("i2", 1), sample("i9", 2)
    alone = model(**pack([[short]])).routing
    ids = torch.tensor([short.ids + [0] * 5])
    mask = torch.tensor([[1] * len(short.ids) + [0] * 5])
    padded = model(ids, short.images, attention_mask=mask).routing
    torch.testing.assert_close(padded.loss, alone.loss)
    torch.testing.assert_close(padded.load, alone.load)
    # Padded rows of a packed batch: as the sum over the two documents' tokens.
    both = model(**pack([[short], [long]])).routing
    parts = [model(**pack([[s]])).routing.load * len(s.ids) for s in (short, long)]
    torch.testing.assert_close(both.load, sum(parts) / (len(short.ids) + len(long.ids)))


FAMILIES = {
    "llama": LlamaConfig,
    "qwen2": Qwen2Config,
    "qwen3": Qwen3Config,
    "smollm3": SmolLM3Config,
    "olmo2": Olmo2Config,
}


def family(name: str, **changes):
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "head_dim": 8,
        "initializer_range": 0.2,
    }
    return FAMILIES[name](**(sizes | changes))


@pytest.mark.parametrize("name", FAMILIES)
def test_upcycled_begins_as_the_dense_decoder(name):
    torch.manual_seed(0)
    config = tiny_config(text_config=family(name), **MOE)
    dense, sparse = (AutoModel.from_config(config.text_config).eval() for _ in range(2))
    sparsify(sparse, config)
    draw_experts(sparse, std=0.2)
    assert len(blocks(sparse)) == 2
    upcycle(sparse, dense)
    ids = torch.randint(0, VOCABULARY, (2, 9))
    torch.testing.assert_close(sparse(ids).last_hidden_state, dense(ids).last_hidden_state, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("copied", [True, False])
def test_a_recipe_upcycles_a_pretrained_decoder(tmp_path, copied):
    torch.manual_seed(0)
    dense = AutoModelForCausalLM.from_config(family("llama")).eval()
    dense.save_pretrained(tmp_path)
    recipe = tiny_recipe(language_model={"from": str(tmp_path), "num_experts": 3, "upcycle": copied})
    model = build_model(recipe, vocab_size=VOCABULARY, image_token_id=3, pad_token_id=0).eval()
    ids = torch.randint(4, VOCABULARY, (2, 9))
    assert torch.allclose(model(ids).logits, dense(ids).logits, atol=1e-4) is copied


def test_sparse_model_is_saved_and_loaded_bit_equal_and_generates(tmp_path):
    model = tiny_model(**MOE)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    loaded = MM1ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(loaded.state_dict()[n], t) for n, t in model.state_dict().items())
    ids = torch.tensor([[0, 0, 1, 7, 9], [1, 4, 5, 6, 8]])
    settings = {"attention_mask": (ids > 0).long(), "max_new_tokens": 5, "do_sample": False}
    with_cache, without = (loaded.generate(ids, use_cache=cache, **settings) for cache in (True, False))
    assert torch.equal(with_cache, without)


def test_packed_documents_stay_apart_with_experts():
    model = tiny_model(**MOE)
    together = model(**pack(ROWS)).logits
    alone = torch.cat([model(**pack([[s]])).logits for row in ROWS for s in row])
    torch.testing.assert_close(together, alone, atol=2e-5, rtol=1e-5)


def test_every_nth_layer_is_sparse():
    config = tiny_config(text_config=family("llama", num_hidden_layers=8), **(MOE | {"moe_every": 4}))
    model = MM1ForConditionalGeneration(config)
    layers = model.model.language_model.layers
    assert [n for n, layer in enumerate(layers) if isinstance(layer.mlp, SparseBlock)] == [3, 7]
    assert all(0.1 < p.std() < 0.3 for block in blocks(model) for p in block.parameters())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"moe_top_k": 6}, "6 experts per token of 5"),
        ({"moe_every": 3}, "one sparse layer in every 3 leaves none of 2"),
        ({"text_config": family("llama", intermediate_size=44, num_hidden_layers=2)}, "width 32 and 44"),
        ({"text_config": family("llama", mlp_bias=True)}, "a llama decoder can't be made sparse"),
    ],
)
def test_what_can_not_be_sparse_is_one_sentence(changes, message):
    with pytest.raises(UserError, match=message):
        tiny_model(**(MOE | changes))
