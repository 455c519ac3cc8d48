"""Budgets: exact where they can be, and the paper's models fit where they should."""

from __future__ import annotations

import pytest
import torch

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.shape import recipe_config
from mm1.model.sizes import flops_per_step, unit_flops
from mm1.recipe import load_recipe
from mm1.scaling.budget import LINK_EFFICIENCY, RESERVE, make_budget
from mm1.scaling.gpus import GPU, device_peak, gpu
from mm1.scaling.memory import activation_bytes
from mm1.scaling.subject import shape_of
from mm1.scaling.weights import Weights
from mm1.scaling.workload import recipe_workload
from mm1.train.optimizer import build_optimizer

SMALL = [
    "data.sequence_length=64",
    "train.batch_size=16",
    "data.images_per_sequence=2",
    "train.steps=1000",
    "train.warmup_steps=10",
]


def tiny(*changes):
    return load_recipe("mm1-tiny", [*SMALL, *changes])


def test_the_papers_step_is_a_million_tokens_of_each():
    recipe = load_recipe("mm1-3b")
    workload = recipe_workload(recipe, 144)
    assert workload.tokens == 200_000 * 512 * 4096
    image = workload.sequences * (workload.length - workload.target_tokens)
    assert image == pytest.approx(1.06e6, rel=0.01)
    assert workload.most_images == 16
    assert workload.pairs == 4096 * 4097 / 2
    assert recipe_workload(recipe, 144, document_length=100).pairs == 4096 * 101 / 2


@pytest.mark.parametrize("experts", [0, 4], ids=["dense", "sparse"])
@pytest.mark.parametrize("freeze", ["[]", "[vision]"])
def test_weights_gradients_and_optimizer_are_exact(freeze, experts):
    recipe = tiny(f"train.freeze={freeze}", f"model.language_model.num_experts={experts}")
    memory = make_budget(recipe, gpu("h100"), 1).memory
    model = MM1ForConditionalGeneration(recipe_config(recipe.model, recipe.tokenizer.vocab_size))
    model.model.vision_tower.requires_grad_("vision" not in recipe.train.freeze)
    optimizer = build_optimizer(model, recipe.train, 1e-3)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    optimizer.step()
    assert memory.weights == sum(p.nbytes for p in model.parameters())
    assert memory.gradients == sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)
    moments = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    assert memory.optimizer == sum(t.nbytes for t in moments)


def test_flops_are_those_of_the_step():
    recipe = tiny()
    budget = make_budget(recipe, gpu("h100"), 4, mfu=0.5)
    units = unit_flops(shape_of(recipe))
    sequences, mean_images = 16, 0.9 * 2
    expected = flops_per_step(
        units,
        tokens=sequences * 64,
        pairs=sequences * 64 * 65 / 2,
        target_tokens=sequences * (64 - 4 * mean_images),
        images=sequences * mean_images,
    )
    assert budget.flops == pytest.approx(expected)
    assert budget.compute_seconds == pytest.approx(sum(expected.values()) / (4 * 989e12 * 0.5))


def test_the_papers_largest_sparse_model_fits_on_a_cluster():
    # One sequence on each, so that one micro-batch is to be counted and not two.
    gpus = 128
    budget = make_budget(load_recipe("mm1-7b-moe", [f"train.batch_size={gpus}"]), gpu("h100"), gpus)
    assert budget.memory.total < (1 - RESERVE) * 80e9
    assert budget.layout.shard * budget.layout.replicas == gpus
    assert (budget.layout.micro_batch, budget.layout.micro_batches) == (1, 1)
    # Weights are gathered twice in bfloat16 (the root's once), gradients reduced once in float32, over the adapters of
    # a machine. Of the 32 experts of a layer each GPU has one, shared by four: so are its weights. Tokens go to two
    # experts and back, in both passes, over the GPU's own adapter.
    assert budget.layout.replicas == 1
    model = shape_of(budget.recipe)
    experts = sum(p.numel() for name, p in model.named_parameters() if ".experts." in name)
    others = sum(p.numel() for p in model.parameters()) - experts
    weights = Weights.of(model, budget.recipe, gpus)
    ring = 127 / 128 * (8 * others - 2 * weights.root) + 8 * 3 / 4 * experts / 32
    exchanged = 31 / 32 * 2 * 4 * 4096 * 2 * 4096 * 8
    assert budget.layout.recompute is False
    assert budget.communication_bytes == pytest.approx(ring + exchanged)
    expected = (ring / (8 * 50e9) + exchanged / 50e9) / LINK_EFFICIENCY
    assert budget.communication_seconds == pytest.approx(expected)


def test_a_measured_rate_sets_the_pace():
    budget = make_budget(tiny(), gpu("h100"), 1, tokens_per_second=1024)
    assert budget.step_seconds == pytest.approx(16 * 64 / 1024)
    assert budget.days == pytest.approx(1000 / 86_400)
    assert budget.gpu_hours == pytest.approx(1000 / 3600)


def test_what_does_not_fit_or_divide_is_one_sentence():
    with pytest.raises(UserError, match=r"train.batch_size 16 can't be divided over 3 GPUs"):
        make_budget(tiny(), gpu("h100"), 3)
    small = GPU("small", 1e12, 1e6, 1e9, 1e9)
    with pytest.raises(UserError, match=r"mm1-tiny does not fit on 2 x small: the smallest layout takes"):
        make_budget(tiny(), small, 2)
    with pytest.raises(UserError, match="GPU 'v100' is unknown"):
        gpu("v100")


def test_adafactor_keeps_sums_whole_and_gathers_one_parameter_at_a_time():
    adam, one, two = (
        make_budget(tiny(f"train.optimizer={name}"), gpu("h100"), gpus)
        for name, gpus in (("adamw", 2), ("adafactor", 1), ("adafactor", 2))
    )
    model = MM1ForConditionalGeneration(recipe_config(tiny().model, tiny().tokenizer.vocab_size))
    optimizer = torch.optim.Adafactor(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = sum(t.nbytes for s in optimizer.state.values() for n, t in s.items() if n != "step")
    assert state <= two.memory.optimizer == one.memory.optimizer <= 1.1 * state
    assert two.memory.optimizer < adam.memory.optimizer
    assert two.communication_seconds > adam.communication_seconds


def activations(rows=1, recompute=False, **changes):
    return activation_bytes(
        shape_of(tiny()), rows=rows, length=64, images=2 * rows, target=64 * rows, recompute=recompute, **changes
    )


def test_activations_grow_by_the_row_and_shrink_by_recomputation():
    one, two, four = (activations(rows) for rows in (1, 2, 4))
    assert four - two == pytest.approx(2 * (two - one), rel=0.01)
    assert activations(recompute=True) < one
    assert activations(attention="eager") > one


def test_activations_of_one_layer_are_what_autograd_saves():
    """Counted independently, by autograd's own hooks on a real forward pass."""
    recipe = tiny()
    model = MM1ForConditionalGeneration(recipe_config(recipe.model, recipe.tokenizer.vocab_size)).train()
    weights = {p.untyped_storage().data_ptr() for p in [*model.parameters(), *model.buffers()]}
    saved = {}

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage
        return tensor

    batch = {
        "input_ids": torch.zeros(8, 64, dtype=torch.long),
        "target_positions": torch.arange(8 * 64),
        "pixel_values": torch.randn(16, 3, 32, 32),
        "image_positions": torch.arange(16 * 4),
    }
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(**batch, use_cache=False).logits
        loss = torch.nn.functional.cross_entropy(logits, torch.zeros(8 * 64, dtype=torch.long))
    kept = sum(storage.nbytes() for storage in saved.values())
    counted = activations(rows=8)
    # On top of what is saved: the logits and their gradient.
    assert kept < counted < kept + 2.1 * logits.nbytes
    loss.backward()


def test_peaks_are_found_by_the_drivers_names():
    assert device_peak("NVIDIA H100 80GB HBM3") == 989e12
    assert device_peak("NVIDIA H100 PCIe") == 756e12
    assert device_peak("NVIDIA A100-SXM4-40GB") == 312e12
    assert device_peak("NVIDIA H100 NVL") is None
    assert device_peak("Radeon") is None
