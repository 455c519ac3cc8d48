"""What ranks do over which experts are spread: functions for `tests.train.forked.on_ranks`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from mm1.document import KINDS
from mm1.model.factory import build_model
from mm1.model.sharded_start import start_sharded
from mm1.model.sparse import Router
from mm1.plan.loader import Batch, PackedSequence, _join
from mm1.processing.images import normalize_pixels
from mm1.recipe import Recipe
from mm1.train.checkpoint import Checkpointer
from mm1.train.objective import Losses, language_model_loss
from mm1.train.optimizer import build_optimizer, clip_gradients
from mm1.train.parallel import World, join_ranks
from mm1.train.sharding import full_tensor, prepare_model, reduce_replicas, share_of

LENGTH, WORDS, IMAGE_TOKENS = 24, 61, 4
TOKENS: dict[str, Any] = {"vocab_size": WORDS, "image_token_id": 60, "pad_token_id": 3}
MODEL: dict[str, Any] = {
    "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 16, "num_layers": 1, "num_heads": 2},
    "connector": {"kind": "average_pool", "num_tokens": IMAGE_TOKENS},
    "language_model": {"hidden_size": 16, "num_layers": 4, "num_heads": 2, "num_experts": 4, "sparse_every": 2},
}
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "recomputed": {"train": {"activation_checkpointing": True}},
    "kept": {"train": {"reshard_after_forward": False}},
    "accumulated": {"micro_batches": 3},
    "two_ranks": {"train": {"expert_parallel": 2}},
    "gathered": {"train": {"expert_parallel": 1}},
    "more_ranks_than_experts": {"experts": 2},
    "more_and_recomputed": {"experts": 2, "train": {"activation_checkpointing": True}},
    "replicas": {"train": {"replicas": 2}, "micro_batches": 2},
    "one_rank_gets_none": {"favourite": 0, "top_k": 1},
    "eager": {"favourite": 0, "top_k": 1, "implementation": "eager"},
    "bf16": {"autocast": torch.bfloat16},
}


class Pixels:
    """The part of a processor that training uses."""

    rescale_factor, image_mean, image_std = 1 / 255, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)

    def normalize(self, pixel_values: torch.Tensor) -> torch.Tensor:
        return normalize_pixels(pixel_values, self)


def batch_of(number: int) -> Batch:
    """Return a packed row of two documents and padding, with a picture in every second one."""
    random = np.random.default_rng(number)
    images = number % 2
    tokens = LENGTH - 3 - number % 4
    ids = random.integers(4, 60, LENGTH)
    ids[:IMAGE_TOKENS] = 60 if images else ids[:IMAGE_TOKENS]
    ids[tokens:] = 3
    first = tokens // 2
    positions = np.concatenate([np.arange(first), np.arange(tokens - first), np.zeros(LENGTH - tokens, np.int64)])
    targets = np.arange(IMAGE_TOKENS, tokens - 1)
    sequence = PackedSequence(
        input_ids=ids,
        position_ids=positions,
        pixel_values=np.zeros((images, 3, 16, 16), np.uint8),
        image_positions=np.arange(IMAGE_TOKENS * images),
        target_positions=targets,
        target_ids=ids[targets + 1],
        kind=KINDS.index("caption"),
        tokens=tokens,
    )
    pixels = torch.from_numpy(random.integers(0, 256, (images, 3, 16, 16), dtype=np.uint8))
    return _join([sequence], pixels)


def recipe_of(case: dict[str, Any]) -> Recipe:
    language = MODEL["language_model"] | {"num_experts": case.get("experts", 4)}
    language |= {"experts_per_token": case["top_k"]} if "top_k" in case else {}
    train = {"steps": 1, "warmup_steps": 0, "batch_size": 1} | case.get("train", {})
    mixture = {"text": {"weight": 1, "sources": [{"corpus": "none"}]}}
    return Recipe.model_validate(
        {
            "name": "experts",
            "model": MODEL | {"language_model": language},
            "data": {"sequence_length": LENGTH, "mixture": mixture},
            "train": train,
        }
    )


def set_up(model: Any, case: dict[str, Any]) -> None:
    """Set how a model computes; where a case has a favourite, every token chooses this expert."""
    model.set_attn_implementation({"text_config": "sdpa", "vision_config": "sdpa"})
    model.set_experts_implementation(case.get("implementation", "grouped_mm"))
    if (expert := case.get("favourite")) is None:
        return

    def choose(module: Any, inputs: Any, output: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        logits, weights, choices = output
        return logits, weights, torch.full_like(choices, expert)

    for module in model.modules():
        if isinstance(module, Router):
            module.register_forward_hook(choose)


def backward(model: Any, numbers: list[list[int]], world: World, autocast: Any) -> list[float]:
    """Add up the gradients of micro-batches as the loop does; return this rank's sums of both losses."""
    count = sum(batch_of(n)["count"] for row in numbers for n in row)
    sums = [0.0, 0.0]
    mine = [row[world.rank :: world.size] for row in numbers]
    for place, row in enumerate(mine):
        reduce_replicas(model, now=place == len(mine) - 1)
        for n in row:
            with torch.autocast("cpu", autocast) if autocast and world.size == 1 else torch.enable_grad():
                losses: Losses = language_model_loss(model, Pixels(), batch_of(n), 1e-4, True)  # type: ignore[arg-type]
            assert losses.mean is not None
            total = losses.total * (world.size / count) + losses.mean / (len(mine) * (len(row)))
            total.backward()
            sums = [sums[0] + float(losses.total.detach()), sums[1] + float(losses.mean.detach())]
    return sums


def compare(case: dict[str, Any], world: World) -> dict[str, float]:
    recipe, autocast = recipe_of(case), case.get("autocast")
    start = start_sharded(recipe.model, **TOKENS, seed=5, share=share_of(world, recipe.train))
    prepare_model(start.model, world, recipe.train, autocast)
    start.fill(world.device)
    set_up(start.model, case)
    micro_batches = case.get("micro_batches", 1)
    numbers = [list(range(world.size * m, world.size * (m + 1))) for m in range(micro_batches)]
    loss, routers = world.sums(backward(start.model, numbers, world, autocast))
    norm, _ = clip_gradients(start.model, 0.1)
    whole = build_model(recipe.model, **TOKENS, seed=5)
    set_up(whole.train(), case)
    wanted_loss, wanted_routers = backward(whole, numbers, World(0, 1, world.device), autocast)
    wanted_norm, _ = clip_gradients(whole, 0.1)
    theirs = dict(whole.named_parameters())
    worst = 0.0
    for name, parameter in start.model.named_parameters():
        wanted = theirs[name].grad
        assert (parameter.grad is None) == (wanted is None), name
        if parameter.grad is not None and wanted is not None:
            got = full_tensor(parameter.grad)
            worst = max(worst, float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-4)))
        full = full_tensor(parameter)
        assert torch.equal(full, theirs[name].detach()), name
    return {
        "loss": abs(loss / wanted_loss - 1),
        "routers": abs(routers / wanted_routers - 1),
        "norm": abs(float(norm) / float(wanted_norm) - 1),
        "gradients": worst,
    }


def write_differences(file: Path, names: list[str]) -> None:
    """Write by case how far losses and gradients of the ranks are from those of one process."""
    with join_ranks("cpu") as world:
        found = {name: compare(CASES[name], world) for name in names}
    if world.is_first:
        file.write_text(json.dumps(found))


def exchange_checkpoints(root: Path) -> None:
    """Load every checkpoint with the experts spread in every way that the ranks allow; write one in each way.

    All tensors must be those of the first checkpoint.
    """
    with join_ranks("cpu") as world:
        known = sorted((root / "checkpoints").iterdir())
        first = load_file(root / "first.safetensors") if known else {}
        for spread in (n for n in (1, 2, 4) if n <= world.size):
            own = checkpointer(spread, world)
            for folder in known:
                for tensor in own._tensors().values():
                    (tensor.to_local() if isinstance(tensor, DTensor) else tensor).zero_()
                own.directory = folder
                assert own.load_latest() == {"step": 1}, folder
                for name, tensor in whole(own).items():
                    assert torch.equal(tensor, first[name]), (folder, spread, name)
            if not known:
                save_file(whole(own), root / "first.safetensors")
            own.directory = root / "checkpoints" / f"{len(known):02d}-{world.size}-ranks-{spread}-spread"
            own.save({"step": 1}, wait=True)


def checkpointer(spread: int, world: World) -> Checkpointer:
    """Return the checkpoints of a model and its optimizer after a step, experts spread over so many ranks."""
    case = CASES["plain"] | {"train": {"expert_parallel": spread}}
    recipe = recipe_of(case)
    start = start_sharded(recipe.model, **TOKENS, seed=5, share=share_of(world, recipe.train))
    prepare_model(start.model, world, recipe.train, None)
    start.fill(world.device)
    set_up(start.model, case)
    optimizer = build_optimizer(start.model, recipe.train, 1e-2)
    backward(start.model, [list(range(world.size))], world, None)
    optimizer.step()
    optimizer.zero_grad()
    return Checkpointer(Path(), start.model, optimizer, world, keep=99)


def whole(own: Checkpointer) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, gathered."""
    return {name: full_tensor(tensor).clone() for name, tensor in own._tensors().items()}
