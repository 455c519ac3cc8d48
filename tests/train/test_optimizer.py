from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from mm1.recipe import TrainRecipe
from mm1.train.adafactor import Adafactor
from mm1.train.optimizer import build_optimizer, clip_gradients, schedule, set_learning_rate, step_if_finite


def test_schedule_warms_up_and_ends_at_a_tenth() -> None:
    recipe = TrainRecipe(steps=100, warmup_steps=10)
    shares = [schedule(step, recipe) for step in range(101)]
    assert shares[:10] == pytest.approx([(i + 1) / 10 for i in range(10)])
    assert shares[10] == 1
    assert all(a > b for a, b in zip(shares[10:], shares[11:], strict=False))
    assert shares[55] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 45 / 90)) / 2)
    assert shares[100] == pytest.approx(0.1)


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.vision_tower = nn.Linear(3, 3)
        self.connector = nn.Linear(3, 3)
        self.language_model = nn.Linear(3, 3)


def test_each_part_has_its_rate() -> None:
    recipe = TrainRecipe(connector_learning_rate=3e-4, vision_learning_rate=1e-4)
    model = Parts()
    optimizer = build_optimizer(model, recipe, 2e-4)
    set_learning_rate(optimizer, 0.5)
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    assert rates[id(model.vision_tower.weight)] == pytest.approx(0.5e-4)
    assert rates[id(model.connector.weight)] == pytest.approx(1.5e-4)
    assert rates[id(model.language_model.weight)] == pytest.approx(1e-4)


def test_the_update_is_axlearns_decoupled_one() -> None:
    """w -= s * (eta * adam + lambda * w) with lambda = 0.1 eta, written out by hand."""
    torch.manual_seed(0)
    eta, share, steps = 0.01, 0.7, 5
    model = nn.Linear(4, 3, bias=False).double()
    recipe = TrainRecipe(betas=(0.9, 0.95), epsilon=1e-8, weight_decay=0.1)
    optimizer = build_optimizer(model, recipe, eta)
    weight = model.weight.detach().clone()
    first, second = torch.zeros_like(weight), torch.zeros_like(weight)
    for step in range(1, steps + 1):
        gradient = torch.randn_like(weight)
        model.weight.grad = gradient.clone()
        set_learning_rate(optimizer, share)
        optimizer.step()
        first = 0.9 * first + 0.1 * gradient
        second = 0.95 * second + 0.05 * gradient**2
        adam = (first / (1 - 0.9**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
        weight = weight - share * (eta * adam + 0.1 * eta * weight)
    assert torch.allclose(model.weight, weight, rtol=1e-10)


@pytest.mark.parametrize("max_norm", [1.0, 1e6, None])
def test_clipping_is_torchs_over_the_whole_model(max_norm: float | None) -> None:
    assert TrainRecipe().clip_norm == 1.0
    torch.manual_seed(0)
    ours, theirs = Parts(), Parts()
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    norm, norms = clip_gradients(ours, max_norm)
    assert norm.item() == pytest.approx(float(nn.utils.clip_grad_norm_(theirs.parameters(), max_norm or 1e9)))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.allclose(one.grad, other.grad)
    assert set(norms) == {"vision", "connector", "language_model"}
    assert norm.item() == pytest.approx(math.hypot(*(part.item() for part in norms.values())))


@pytest.mark.parametrize("name", ["adamw", "adafactor"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_step_with_undefined_gradients_changes_neither_weights_nor_state(name: str, bad: float) -> None:
    torch.manual_seed(0)
    ours, theirs = Parts(), Parts()
    theirs.load_state_dict(ours.state_dict())
    recipe = TrainRecipe.model_validate({"optimizer": name})
    optimizers = [build_optimizer(model, recipe, 0.01) for model in (ours, theirs)]
    for skipped in (False, True, False):
        gradients = [torch.randn_like(parameter) for parameter in ours.parameters()]
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            if skipped and model is theirs:
                continue
            for parameter, gradient in zip(model.parameters(), gradients, strict=True):
                parameter.grad = gradient.clone()
            if skipped:
                next(model.parameters()).grad.view(-1)[0] = bad  # type: ignore[union-attr]  # set above
            norm, _ = clip_gradients(model, 1.0)
            step_if_finite(optimizer, norm)
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(one, other)
        ours_state, theirs_state = optimizers[0].state[one], optimizers[1].state[other]
        assert ours_state.keys() == theirs_state.keys()
        assert all(torch.equal(ours_state[key], theirs_state[key]) for key in ours_state)


def test_adafactor_is_torchs() -> None:
    torch.manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape)) for shape in ((5, 7), (6,), (2, 3, 4, 4), (1, 9))]
    theirs = [nn.Parameter(parameter.detach().clone()) for parameter in ours]
    one, other = Adafactor(ours, lr=0.02, weight_decay=0.1), torch.optim.Adafactor(theirs, lr=0.02, weight_decay=0.1)
    for step in range(20):
        for parameter, same in zip(ours, theirs, strict=True):
            parameter.grad = torch.randn_like(parameter) * 10.0 ** (step % 4 - 2)
            same.grad = parameter.grad.clone()
        one.step()
        other.step()
    for parameter, same in zip(ours, theirs, strict=True):
        torch.testing.assert_close(parameter, same, rtol=1e-5, atol=1e-6)
        assert one.state[parameter].keys() == other.state[same].keys()
        for name, value in other.state[same].items():
            torch.testing.assert_close(one.state[parameter][name], value, rtol=1e-5, atol=1e-7)
