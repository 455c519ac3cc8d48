"""Pre-training of an image encoder: from a recipe to towers in Hugging Face format.

recipe --> corpora, tokenizer, indexes --> pictures --> plan --> towers --> Trainer --> RUN/model
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import CLIPImageProcessorPil, PreTrainedTokenizerBase

from mm1.data.corpus import Split
from mm1.document import KINDS
from mm1.encoder.autoregressive import AutoregressiveEncoder
from mm1.encoder.captions import check_captions
from mm1.encoder.contrastive import ContrastiveEncoder
from mm1.encoder.pictures import EncoderBatch, PairCollate, PatchCollate, PictureDataset
from mm1.encoder.selection import Pictures, select_pictures
from mm1.encoder.towers import build_clip, build_tower, clip_processor, image_processor
from mm1.errors import UserError
from mm1.model.fresh import build_fresh
from mm1.model.parts import blocks_of, recompute_layers
from mm1.model.resolve import resolve_models
from mm1.plan.index import tokenizer_fingerprint
from mm1.plan.loader import build_loader
from mm1.plan.plan import Plan, write_plan
from mm1.plan.sources import plan_sources
from mm1.processing.images import normalize_pixels
from mm1.processing.tokenizer import train_caption_tokenizer, train_tokenizer
from mm1.progress import console
from mm1.recipe import EncoderRecipe
from mm1.train.begin import begin
from mm1.train.capabilities import autocast_dtype, compiles, usable_attention
from mm1.train.changes import MICRO_BATCH, begun_dtype, fixed_keys
from mm1.train.export import write_model
from mm1.train.loop import Trainer
from mm1.train.objective import Losses
from mm1.train.optimizer import build_optimizer
from mm1.train.parallel import World
from mm1.train.prepare import prepare_tokenizer, trained_plan_hash
from mm1.train.run_directory import environment, write_environment
from mm1.train.sharding import shard_model


def pretrain_encoder(recipe: EncoderRecipe, directory: Path) -> Path:
    """Train the recipe's encoder, or resume an interrupted run.

    Under torchrun every rank calls this function; the first one prepares the files that all ranks read.

    Args:
        recipe: The encoder, its data and its training.
        directory: The run's directory.

    Returns:
        The folder of the trained model: a `CLIPModel` with its processor, or for AIM a `CLIPVisionModel` with its
        image processor.

    Raises:
        UserError: If the recipe doesn't fit the corpora, the machine or the run directory.
        Stopped: If the user or the scheduler interrupted the training; a checkpoint has been saved.
    """
    with begin(recipe, directory) as beginning:
        world, splits, result = beginning.world, beginning.splits, beginning.result
        if beginning.done:
            return result
        autocast = autocast_dtype(recipe.train, world.device, begun_dtype(directory))
        with world.first_rank_first():
            resolved = resolve_models(recipe)
            tokenizer = _tokenizer(resolved, directory, splits)
            model = _model(resolved, tokenizer, autocast, world)
            pictures = _pictures(recipe, splits, tokenizer)
            if recipe.objective.contrastive and world.is_first:
                check_captions(splits)
            plan = _plan(recipe, directory, splits, pictures, tokenizer, _patches(model))
        world.check_equal(plan=plan.hash)
        images = image_processor(resolved.model)
        if world.is_first:
            parts = {name: sum(p.numel() for p in part.parameters()) for name, part in _parts(model).items()}
            training = {"parameters": parts, "peak_learning_rate": recipe.train.learning_rate, "plan_hash": plan.hash}
            left_out = {name: selected.left_out for name, selected in pictures.items() if selected.left_out}
            precision = str(autocast or torch.float32).removeprefix("torch.")
            write_environment(
                directory,
                environment(
                    **training,
                    left_out=left_out,
                    ranks=world.size,
                    device=str(world.device),
                    dtype=precision,
                    fixed_keys=_fixed_keys(model),
                ),
            )
            _print_training(parts, plan, pictures)
        _prepare(model, world, recipe, autocast)
        dataset = PictureDataset(
            plan,
            list(splits.values()),
            [selected.rows for selected in pictures.values()],
            recipe.model.vision.image_size,
            recipe.data,
            recipe.seed,
        )
        _trainer(recipe, directory, model, dataset, tokenizer, images, autocast, world).run()
        if isinstance(model, ContrastiveEncoder):
            write_model(model.finish(), clip_processor(images, tokenizer), result, world)
        else:
            write_model(model.tower, images, result, world)
    return result


def _tokenizer(recipe: EncoderRecipe, directory: Path, splits: dict[str, Split]) -> PreTrainedTokenizerBase:
    """Return the captions' tokenizer; for AIM, which reads no captions, a tokenizer of bytes."""
    if not recipe.objective.contrastive:
        return train_tokenizer((), 300)
    train = partial(train_caption_tokenizer, max_tokens=recipe.data.sequence_length)
    return prepare_tokenizer(recipe, directory, splits, train)


def _pictures(
    recipe: EncoderRecipe, splits: dict[str, Split], tokenizer: PreTrainedTokenizerBase
) -> dict[str, Pictures]:
    """Select the documents of every split that the encoder can be trained on.

    Raises:
        UserError: If a split has none.
    """
    captions = recipe.objective.contrastive
    pictures = {}
    for name, split in splits.items():
        selected = select_pictures(split, tokenizer, recipe.data.sequence_length, captions)
        if not len(selected.rows):
            reasons = ", ".join(f"{count:,} have {reason}" for reason, count in selected.left_out.items())
            needed = "one picture and a caption" if captions else "one picture"
            raise UserError(
                f"{name}: no document has {needed} ({reasons or 'it is empty'}): leave the split out of the mixture"
            )
        pictures[name] = selected
    return pictures


def _plan(
    recipe: EncoderRecipe,
    directory: Path,
    splits: dict[str, Split],
    pictures: dict[str, Pictures],
    tokenizer: PreTrainedTokenizerBase,
    patches: int,
) -> Plan:
    captions = recipe.data.sequence_length if recipe.objective.contrastive else 2
    return write_plan(
        directory / "plan",
        plan_sources(recipe, splits, {name: selected.index for name, selected in pictures.items()}),
        recipe.data.model_copy(update={"sequence_length": patches + captions}),
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        tokens_per_image=patches,
        batch_size=recipe.train.batch_size,
        steps=recipe.train.steps,
        seed=recipe.seed,
        fixed=trained_plan_hash(directory),
    )


def _model(
    recipe: EncoderRecipe, tokenizer: PreTrainedTokenizerBase, autocast: torch.dtype | None, world: World
) -> ContrastiveEncoder | AutoregressiveEncoder:
    attention = recipe.model.vision.attention
    for name in [attention] if isinstance(attention, str) else attention:
        if not recipe.objective.contrastive and name not in ("sdpa", "eager"):
            raise UserError(
                f"model.vision.attention: {name} doesn't support AIM's prefix mask: set it to sdpa or eager"
            )
    vision = usable_attention(attention, "model.vision.attention", world.device, autocast)
    model: ContrastiveEncoder | AutoregressiveEncoder
    if recipe.objective.contrastive:
        clip = build_clip(recipe.model, tokenizer, recipe.data.sequence_length, recipe.seed)
        text = usable_attention(recipe.model.text.attention, "model.text.attention", world.device, autocast)
        clip.set_attn_implementation({"vision_config": vision, "text_config": text})
        model = ContrastiveEncoder(clip, recipe.objective, world)
    else:
        tower = build_tower(recipe.model.vision, recipe.seed)
        tower.set_attn_implementation(vision)
        model = build_fresh(lambda: AutoregressiveEncoder(tower, recipe.objective.head_depth), recipe.seed)
    return model.to(world.device)


def _patches(model: ContrastiveEncoder | AutoregressiveEncoder) -> int:
    tower = model.clip.vision_model if isinstance(model, ContrastiveEncoder) else model.tower
    config: Any = tower.config
    patches: int = (config.image_size // config.patch_size) ** 2
    return patches


def _parts(model: ContrastiveEncoder | AutoregressiveEncoder) -> dict[str, nn.Module]:
    if isinstance(model, AutoregressiveEncoder):
        return {"vision_tower": model.tower, "head": model.head}
    clip = model.clip
    projections = nn.ModuleList([clip.visual_projection, clip.text_projection, model.temperature])
    return {"vision_tower": clip.vision_model, "text_tower": clip.text_model, "projections": projections}


def _prepare(
    model: ContrastiveEncoder | AutoregressiveEncoder, world: World, recipe: EncoderRecipe, autocast: torch.dtype | None
) -> None:
    """Apply activation checkpointing, compilation and sharding to a model, in place."""
    if isinstance(model, ContrastiveEncoder):
        towers: Sequence[Any] = [model.clip.vision_model, model.clip.text_model]
        float32_parts: list[nn.Module] = [model.temperature]
    else:
        towers, float32_parts = [model.tower], []
    if recipe.train.activation_checkpointing:
        for tower in towers:
            recompute_layers(tower)
    blocks = [block for tower in towers for block in blocks_of(tower)]
    if compiles(recipe.train.compile, world.device):
        for block in blocks:
            block.compile()
    shard_model(model, [[block] for block in blocks], world, recipe.train, autocast, float32_parts)


def _trainer(
    recipe: EncoderRecipe,
    directory: Path,
    model: ContrastiveEncoder | AutoregressiveEncoder,
    dataset: PictureDataset,
    tokenizer: PreTrainedTokenizerBase,
    images: CLIPImageProcessorPil,
    autocast: torch.dtype | None,
    world: World,
) -> Trainer:
    micro, micro_batches = world.micro_batches(recipe.train)
    patches = _patches(model)
    pairs = PairCollate(tokenizer, recipe.data.sequence_length, patches)
    collate = pairs if recipe.objective.contrastive else PatchCollate(patches)

    def loader_from(step: int) -> DataLoader[Any]:
        return build_loader(
            dataset,
            step,
            micro,
            collate=collate,
            workers=recipe.data.workers,
            rank=world.rank,
            ranks=world.size,
            pinned=world.device.type == "cuda",
        )

    def loss(batch: EncoderBatch, number: int) -> Losses:
        pixels = normalize_pixels(batch["pixel_values"], images)
        figures = {}
        if isinstance(model, ContrastiveEncoder):
            model.temperature.clamp()
            total, rows = model(pixels, batch["input_ids"])
            figures = {
                "scale": model.temperature.scale(),
                "equal_captions": torch.tensor(batch["equal_captions"]),
            }
        else:
            rows = model(pixels, batch["terms"])
            total, rows = rows.sum(), rows.detach()
        empty = torch.zeros(len(KINDS), device=rows.device)
        by_kind = empty.index_add(0, batch["kinds"], rows)
        return Losses(total, by_kind, empty.index_add(0, batch["kinds"], batch["terms"].float()), figures=figures)

    return Trainer(
        model,
        build_optimizer(model, recipe.train, float(recipe.train.learning_rate or 0)),
        loader_from,
        loss,
        recipe.train,
        directory,
        world=world,
        micro_batches=micro_batches,
        autocast=autocast if world.size == 1 else None,
        seed=recipe.seed,
        micro_batch_fixed_by=_fixed_keys(model).get(MICRO_BATCH),
    )


def _fixed_keys(model: ContrastiveEncoder | AutoregressiveEncoder) -> dict[str, str]:
    fixed = fixed_keys(model)
    if isinstance(model, ContrastiveEncoder):
        fixed[MICRO_BATCH] = "a contrastive loss compares the whole batch"
    return fixed


def _print_training(parts: dict[str, int], plan: Plan, pictures: dict[str, Pictures]) -> None:
    sizes = ", ".join(f"{name.replace('_', ' ')} {count / 1e6:.2f}M" for name, count in parts.items())
    console.print(f"encoder: {sizes}")
    for name, selected in pictures.items():
        epochs = plan.info["sources"][name]["epochs"]
        console.print(f"{name}: {len(selected.rows):,} pictures, {epochs:.1f} epochs")
        for reason, count in selected.left_out.items():
            console.print(f"{name}: {count:,} documents are left out: {reason}", style="yellow")
        if selected.cut:
            console.print(f"{name}: {selected.cut:,} captions are cut to data.sequence_length", style="yellow")
