"""Multimodal pre-training: from a recipe to a trained model in Hugging Face format.

recipe --> corpora, tokenizer, indexes --> plan --> model --> Trainer --> RUN/model
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

import mm1
from mm1.data.corpus import Split
from mm1.data.loader import Batch, PlanDataset, build_loader
from mm1.data.plan import Plan
from mm1.model import MM1ForConditionalGeneration
from mm1.model.factory import build_model
from mm1.model.sizes import non_embedding_parameters, parameters_by_part
from mm1.processing.processor import MM1Processor
from mm1.progress import console
from mm1.recipe import Recipe
from mm1.train.export import write_model
from mm1.train.loop import Trainer
from mm1.train.objective import Losses, language_model_loss
from mm1.train.optimizer import build_optimizer, law_learning_rate
from mm1.train.parallel import World, joined, prepare_model
from mm1.train.precision import autocast_dtype
from mm1.train.prepare import decoder_folder, open_splits, prepare_plan, prepare_tokenizer, recipe_processor
from mm1.train.run import environment, open_run, write_environment


def pretrain(recipe: Recipe, directory: Path) -> Path:
    """Train the recipe's model, or go on where an interrupted run of it stopped.

    Under torchrun every rank calls this; the first prepares what all of them read.

    Args:
        recipe: What to train, on what, how.
        directory: The run's directory.

    Returns:
        The folder of the trained model, for `from_pretrained`.

    Raises:
        UserError: If the recipe doesn't fit the corpora, the machine or the run directory.
        Stopped: If the user or the scheduler interrupted it; a checkpoint has been saved.
    """
    with joined(recipe.train.device) as world:
        with world.together():
            splits = open_splits(recipe)
        content = " ".join(split.content_hash for split in splits.values())
        world.agree(recipe=recipe.to_yaml(), corpora=content, code=mm1.__version__)
        with world.together():
            if world.first:
                open_run(directory, recipe)
        result = directory / "model"
        if (result / "config.json").is_file():
            console.print(f"{result} is there already: nothing left to train")
            return result
        with world.in_turn():
            decoder = decoder_folder(recipe)
            tokenizer = prepare_tokenizer(recipe, directory, decoder, splits)
            plan = prepare_plan(recipe, directory, splits, tokenizer)
        world.agree(plan=plan.hash)
        processor = recipe_processor(recipe, tokenizer)
        model = _model(recipe, processor, decoder, world.device)
        parts, peak = parameters_by_part(model), _peak_learning_rate(recipe, model)
        autocast = autocast_dtype(recipe.train, world.device)
        if world.first:
            facts = {"parameters": parts, "peak_learning_rate": peak, "plan_hash": plan.hash, "ranks": world.size}
            precision = str(autocast or torch.float32).removeprefix("torch.")
            write_environment(directory, environment(**facts, device=str(world.device), dtype=precision))
            _announce(parts, plan, peak)
        prepare_model(model, world, recipe.train, autocast)
        _trainer(recipe, directory, model, processor, plan, list(splits.values()), peak, autocast, world).run()
        write_model(model, processor, result, world)
    return result


def _model(
    recipe: Recipe, processor: MM1Processor, decoder: Path | str | None, device: torch.device
) -> MM1ForConditionalGeneration:
    tokenizer = processor.tokenizer
    model = build_model(
        recipe.model,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        seed=recipe.seed,
        language_model=decoder,
    )
    torch.nn.Module.to(model, device)
    model.set_attn_implementation(
        {"vision_config": recipe.model.vision.attention, "text_config": recipe.model.language_model.attention}
    )
    return model


def _peak_learning_rate(recipe: Recipe, model: MM1ForConditionalGeneration) -> float:
    return recipe.train.learning_rate or law_learning_rate(non_embedding_parameters(model))


def _trainer(
    recipe: Recipe,
    directory: Path,
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    plan: Plan,
    splits: list[Split],
    peak: float,
    autocast: torch.dtype | None,
    world: World,
) -> Trainer:
    dataset = PlanDataset(plan, splits, processor, recipe.data.document_mask)
    micro, micro_batches = world.micro_batches(recipe.train)
    together = micro * world.size

    def loader_from(step: int) -> DataLoader[Any]:
        workers = recipe.data.workers
        return build_loader(dataset, step, micro, workers=workers, rank=world.rank, ranks=world.size)

    def loss(batch: Batch, number: int) -> Losses:
        # The plan knows whether any rank has images in this micro-batch: nobody has to be asked.
        images = plan.count_images(number * together, (number + 1) * together)
        return language_model_loss(model, processor, batch, recipe.train.z_loss, images > 0)

    return Trainer(
        model,
        build_optimizer(model, recipe.train, peak),
        loader_from,
        loss,
        recipe.train,
        directory,
        world=world,
        micro_batches=micro_batches,
        autocast=autocast if world.size == 1 else None,
        seed=recipe.seed,
    )


def _announce(parts: dict[str, int], plan: Plan, peak: float) -> None:
    sizes = ", ".join(f"{name.replace('_', ' ')} {count / 1e6:.2f}M" for name, count in parts.items())
    info, fill = plan.info, plan.info["fill"]
    console.print(f"model: {sizes}; peak learning rate {peak:.2e}")
    console.print(
        f"plan: {info['sequences']:,} sequences of {info['sequence_length']} tokens, {info['tokens']:,} tokens, "
        f"{info['images']:,} images, fill {fill['tokens']:.1%} of the tokens ({fill['binding']:.1%} of whichever "
        "limit binds)"
    )
    for warning in info["warnings"]:
        console.print(f"[yellow]{warning}[/]")
