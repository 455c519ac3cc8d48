"""The loss under the library's conventions: labels, items of a batch, and the routers' losses in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint
from transformers import Trainer, TrainingArguments

from mm1.errors import UserValueError
from mm1.model import loss as loss_module
from mm1.model.loss import NO_TARGET, summed_loss
from mm1.model.sparse import SparseBlock

from .builders import IMAGE, pack, sample, tiny_model

MOE = {"moe_num_experts": 4, "moe_every": 2}


def text(rows: int, length: int, seed: int = 1, equal: bool = False) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(4, 64, (1 if equal else rows, length), generator=generator)
    return ids.expand(rows, -1)


def with_picture() -> dict[str, torch.Tensor]:
    document = sample("5i6", 1)
    ids = torch.tensor([document.ids])
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "pixel_values": document.images}


def gradients(model: Any) -> dict[str, torch.Tensor]:
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_gradients(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("given", ["labels", "shift_labels"])
def test_image_tokens_are_no_targets(given: str) -> None:
    model, batch = tiny_model(), with_picture()
    labels = batch["input_ids"]
    words = labels.masked_fill(labels == IMAGE, -100)
    if given == "shift_labels":
        labels, words = (F.pad(ids[:, 1:], (0, 1), value=-100) for ids in (labels, words))
    loss = model(**batch, **{given: labels}).loss
    assert torch.equal(loss, model(**batch, **{given: words}).loss)
    logits = model(**batch).logits[0, :-1]
    targets = batch["input_ids"][0, 1:]
    torch.testing.assert_close(loss, F.cross_entropy(logits[targets != IMAGE], targets[targets != IMAGE]))


def test_image_tokens_whose_features_are_given_as_embeddings_are_no_targets() -> None:
    model: Any = tiny_model()
    batch = with_picture()
    wanted = model(**batch, labels=batch["input_ids"]).loss
    embeds = model.get_input_embeddings()(batch["input_ids"])
    embeds[batch["input_ids"] == IMAGE] = model.get_image_features(batch["pixel_values"]).flatten(0, 1)
    found = model(inputs_embeds=embeds, attention_mask=batch["attention_mask"], labels=batch["input_ids"]).loss
    torch.testing.assert_close(found, wanted)


def test_shift_labels_are_the_labels_one_place_on() -> None:
    model, ids = tiny_model(), text(2, 9)
    labels = ids.masked_fill(ids % 3 == 0, -100)
    shifted = F.pad(labels[:, 1:], (0, 1), value=-100)
    assert torch.equal(model(ids, shift_labels=shifted).loss, model(ids, labels=labels).loss)


@pytest.mark.parametrize("experts", [{}, MOE])
@pytest.mark.parametrize("items", [{}, {"num_items_in_batch": 0}, {"num_items_in_batch": torch.tensor(7)}])
def test_nothing_to_learn_is_a_loss_of_zero(experts: dict[str, int], items: dict[str, Any]) -> None:
    model, ids = tiny_model(**experts).train(), text(2, 9)
    loss = model(ids, labels=torch.full_like(ids, -100), **items).loss
    assert loss == 0
    loss.backward()
    assert all(not gradient.any() for gradient in gradients(model).values())


@pytest.mark.parametrize("sizes", [[1, 1, 1, 1], [1, 3], [2, 2]])
@pytest.mark.parametrize("way", ["labels", "targets"])
def test_micro_batches_give_the_loss_and_the_gradient_of_the_batch(sizes: list[int], way: str) -> None:
    """Equal rows: the routers' losses of some are those of all."""
    ids = text(4, 12, equal=True)

    def run(model: Any, rows: torch.Tensor) -> torch.Tensor:
        mask = torch.ones_like(rows)
        if way == "labels":
            return model(rows, attention_mask=mask, labels=rows, num_items_in_batch=4 * 11).loss
        places = torch.arange(rows.numel()).view_as(rows)[:, :-1].flatten()
        targets = {"target_positions": places, "target_ids": rows[:, 1:].flatten()}
        return model(rows, attention_mask=mask, **targets, num_items_in_batch=4 * 11).loss

    whole, parts = tiny_model(**MOE).train(), tiny_model(**MOE).train()
    loss = run(whole, ids)
    loss.backward()
    losses = [run(parts, some) for some in ids.split(sizes)]
    for some in losses:
        some.backward()
    torch.testing.assert_close(torch.stack(losses).sum(), loss)
    assert_same_gradients(gradients(whole), gradients(parts))


def test_router_losses_of_a_micro_batch_count_by_its_target_tokens() -> None:
    model = tiny_model(**MOE)
    total, wanted = torch.tensor(0.0), torch.tensor(0.0)
    for seed, (rows, learned) in enumerate([(1, 3), (3, 9)]):
        ids = text(rows, 10, seed)
        labels = ids.clone()
        labels[:, : 10 - learned] = -100
        output = model(ids, labels=labels, num_items_in_batch=30)
        total = total + output.loss
        logits = output.logits[:, 9 - learned : 9].flatten(0, 1)
        wanted = wanted + F.cross_entropy(logits, ids[:, 10 - learned :].flatten(), reduction="sum") / 30
        wanted = wanted + rows * learned / 30 * output.routing.loss
    torch.testing.assert_close(total, wanted)


@pytest.mark.parametrize("experts", [{}, MOE])
def test_the_trainers_accumulation_makes_the_step_of_the_whole_batch(tmp_path: Path, experts: dict[str, int]) -> None:
    (row,) = text(1, 12)
    rows = [{"input_ids": row, "attention_mask": torch.ones_like(row), "labels": row}] * 4
    weights = []
    for size in (4, 1):
        model = tiny_model(**experts)
        args = TrainingArguments(
            str(tmp_path / str(size)),
            max_steps=1,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            learning_rate=0.5,
            max_grad_norm=0.0,
            optim="sgd",
            lr_scheduler_type="constant",
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        Trainer(model, args, train_dataset=rows).train()
        weights.append({name: p.detach() for name, p in model.named_parameters()})
    assert any((weights[0][n] != p).any() for n, p in tiny_model(**experts).named_parameters())
    assert_same_gradients(*weights)


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("moe", [MOE, MOE | {"moe_every": 1}])
def test_checkpointing_gives_the_routers_the_same_gradient(reentrant: bool, moe: dict[str, int]) -> None:
    found = []
    for settings in (None, {"use_reentrant": reentrant}):
        model = tiny_model(**moe, moe_balance_loss=1.0, moe_z_loss=1.0).train()
        if settings is not None:
            model.activation_checkpointing_enable(settings)
        output = model(**pack([[sample("i5", 1), sample("3i2i4", 2)], [sample("9", 3)]]))
        assert output.routing.loss.requires_grad
        output.loss.backward()
        found.append(gradients(model))
    assert_same_gradients(*found)
    assert all(block.routed is None for block in model.modules() if isinstance(block, SparseBlock))


def test_checkpointing_that_would_lose_the_routers_gradient_is_refused() -> None:
    """Some trainers wrap layers themselves."""
    model = tiny_model(**MOE).train()
    (layer,) = [layer for layer in model.model.language_model.layers if isinstance(layer.mlp, SparseBlock)]
    forward = layer.forward
    layer.forward = lambda *args, **kwargs: checkpoint(
        lambda *some: forward(*some, **kwargs), *args, use_reentrant=True
    )
    ids = text(2, 9)
    with pytest.raises(UserValueError, match=r"routers' losses would have no gradient.*use_reentrant=False"):
        model(ids, labels=ids, use_cache=False)


@pytest.mark.parametrize("embeddings", [False, True])
@pytest.mark.parametrize("longer", [0, 5])
def test_the_mask_of_a_sparse_decoder_may_be_longer_than_the_input(embeddings: bool, longer: int) -> None:
    """A mask goes over the cached tokens too, and over places of a static cache that no token has yet."""
    model, ids = tiny_model(**MOE), text(2, 8)
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    with torch.no_grad():
        whole = model(ids, attention_mask=mask)
        first = model(ids[:, :5], attention_mask=mask[:, :5], use_cache=True)
        rest = ids[:, 5:]
        given = {"inputs_embeds": model.get_input_embeddings()(rest)} if embeddings else {"input_ids": rest}
        mask = F.pad(mask, (0, longer))
        second = model(**given, attention_mask=mask, past_key_values=first.past_key_values)
    torch.testing.assert_close(second.logits, whole.logits[:, 5:], atol=1e-4, rtol=1e-4)
    assert torch.equal(first.routing.counts + second.routing.counts, whole.routing.counts)
    assert whole.routing.counts.sum() == 2 * (ids.numel() - 3)


def head_and_rows(dtype: torch.dtype, count: int = 37) -> tuple[nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    head = nn.Linear(8, 50, bias=False, dtype=dtype)
    rows = torch.randn(count, 8, dtype=dtype, requires_grad=True)
    targets = torch.randint(50, (count,))
    targets[::5] = NO_TARGET
    return head, rows, targets


def differentiated(head: nn.Linear, rows: torch.Tensor, targets: torch.Tensor, z_loss: float) -> list[torch.Tensor]:
    total, losses = summed_loss(rows, head, targets, z_loss)
    found = torch.autograd.grad(total * 0.3, [rows, *(p for p in head.parameters() if p.requires_grad)])
    return [total.detach(), losses, *found]


@pytest.mark.parametrize("at_once", [50, 500, 1000])  # a row at a time; chunks, the last one smaller
@pytest.mark.parametrize("z_loss", [0.0, 0.1])
@pytest.mark.parametrize("frozen", [False, True])
def test_a_loss_in_chunks_is_the_whole_one(
    at_once: int, z_loss: float, frozen: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    head, rows, targets = head_and_rows(torch.float64)
    head.requires_grad_(not frozen)
    whole = differentiated(head, rows, targets, z_loss)
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", at_once)
    chunked = differentiated(head, rows, targets, z_loss)
    assert len(chunked) == len(whole) == (3 if frozen else 4)
    for ours, theirs in zip(chunked, whole, strict=True):
        # The whole one's logits are in float32, as they are in training.
        torch.testing.assert_close(ours, theirs.to(ours.dtype), atol=1e-5, rtol=1e-5)
    total = differentiated(head, rows, targets, z_loss)[0]
    logits = head(rows)
    expected = F.cross_entropy(logits, targets, reduction="sum", ignore_index=NO_TARGET)
    expected = expected + z_loss * logits.logsumexp(-1)[targets != NO_TARGET].square().sum()
    torch.testing.assert_close(total, expected.detach(), rtol=1e-10, atol=0)


def test_chunks_under_autocast_are_as_exact_as_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    head, rows, targets = head_and_rows(torch.float32, 400)
    exact = differentiated(head, rows, targets, 0.01)
    with torch.autocast("cpu", torch.bfloat16):
        whole = differentiated(head, rows, targets, 0.01)
        monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 2000)
        chunked = differentiated(head, rows, targets, 0.01)
    for ours, theirs, right in zip(chunked, whole, exact, strict=True):
        assert ours.dtype == right.dtype
        assert (ours - right).norm() <= 1.1 * (theirs - right).norm() + 1e-6


class Largest(TorchDispatchMode):
    """Notes the largest tensor that an operation returns."""

    largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, torch.Tensor):
            self.largest = max(self.largest, result.numel())
        return result


def test_logits_of_many_targets_are_never_all_there(monkeypatch: pytest.MonkeyPatch) -> None:
    head, rows, targets = head_and_rows(torch.float32, 4000)
    with Largest() as whole:
        differentiated(head, rows, targets, 0.01)
    monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", 20_000)
    with Largest() as chunked:
        differentiated(head, rows, targets, 0.01)
    assert whole.largest == 4000 * 50
    assert chunked.largest == max(4000 * 8, 384 * 50)  # what the head reads; a chunk of 400 rows, rounded down


@pytest.mark.parametrize("tied", [False, True])
def test_a_model_with_a_chunked_loss_has_the_gradients_of_the_whole(
    tied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model: Any = tiny_model()
    if tied:
        model.lm_head.weight = model.get_input_embeddings().weight
    ids = text(2, 24)
    targets = {"target_positions": torch.arange(20), "target_ids": text(1, 20, seed=2).flatten()}
    found = []
    for at_once in (loss_module.LOGITS_AT_ONCE, 256):
        monkeypatch.setattr(loss_module, "LOGITS_AT_ONCE", at_once)
        model.zero_grad()
        output = model(input_ids=ids, z_loss=0.01, **targets)
        assert output.logits is None
        (output.loss_sum / 20).backward()
        found.append({name: gradient.clone() for name, gradient in gradients(model).items()})
    assert_same_gradients(*found)
    logits = model(input_ids=ids, target_positions=targets["target_positions"]).logits
    torch.testing.assert_close(
        output.target_losses, F.cross_entropy(logits, targets["target_ids"], reduction="none"), rtol=1e-5, atol=1e-6
    )
