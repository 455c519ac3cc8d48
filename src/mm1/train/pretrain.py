"""Multimodal pre-training: from a recipe to a trained model in Hugging Face format.

recipe --> corpora, tokenizer, indexes --> plan --> model --> Trainer --> RUN/model
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from mm1.data.corpus import Split
from mm1.model import MM1ForConditionalGeneration
from mm1.model.ends import end_with_turns
from mm1.model.lora import BEGAN_WITH, adapter_tensors, training_words
from mm1.model.processor import recipe_processor, token_ids
from mm1.model.resolve import resolve_models
from mm1.model.sharded_start import ShardedStart, start_sharded
from mm1.model.sizes import non_embedding_parameters, parameters_by_part, unit_flops
from mm1.plan.loader import Batch, PlanDataset, build_loader
from mm1.plan.micro_batches import fixed_shapes, image_rounds
from mm1.plan.plan import Plan
from mm1.processing.processor import MM1Processor
from mm1.progress import console
from mm1.recipe import Recipe
from mm1.scaling.law import PAPER_LAW
from mm1.train.adapter import starting_weights, write_adapted
from mm1.train.begin import begin
from mm1.train.border_check import check_borders
from mm1.train.capabilities import autocast_dtype, decoder_attention, usable_attention
from mm1.train.changes import MICRO_BATCH, begun_dtype, fixed_keys, latest_step
from mm1.train.efficiency import batch_flops, peak_flops
from mm1.train.export import write_model
from mm1.train.loop import Compute, Scoring, Trainer
from mm1.train.objective import Losses, language_model_loss
from mm1.train.optimizer import build_optimizer
from mm1.train.parallel import World
from mm1.train.prepare import prepare_plan, prepare_tokenizer
from mm1.train.run_directory import environment, write_environment
from mm1.train.scores import Score, scoring
from mm1.train.sharding import prepare_model, share_of
from mm1.train.tracking import check_trackers


def pretrain(recipe: Recipe, directory: Path, score: Score | None = None) -> Path:
    """Train the recipe's model, or resume an interrupted run.

    Under torchrun every rank calls this function; the first one prepares the files that all ranks read.

    Args:
        recipe: The model, its data and its training.
        directory: The run's directory.
        score: Scores a model; required if the recipe has `evaluate.during`
            (`mm1.evaluate.during.scorer_during_training` makes one).

    Returns:
        The folder of the trained model, for `from_pretrained`.

    Raises:
        UserError: If the recipe doesn't fit the corpora, the machine or the run directory.
        Stopped: If the user or the scheduler interrupted the training; a checkpoint has been saved.
    """
    check_trackers(recipe.train.trackers)
    with begin(recipe, directory) as beginning:
        world, splits, result = beginning.world, beginning.splits, beginning.result
        if beginning.done:
            return result
        with world.first_rank_first():
            resolved = resolve_models(recipe)
            tokenizer = prepare_tokenizer(resolved, directory, splits)
            processor = recipe_processor(resolved, tokenizer)
            plan = prepare_plan(recipe, directory, splits, processor, ranks=world.size)
        world.check_equal(plan=plan.hash)
        autocast = autocast_dtype(recipe.train, world.device, begun_dtype(directory))
        lora = recipe.train.lora is not None
        from_checkpoint = latest_step(directory) > 0 and not lora  # with adapters, checkpoints hold those alone
        with world.errors_shared():
            start = recipe_start(resolved, processor, world, autocast, resumes=from_checkpoint)
        model = start.model
        learning_rate = recipe.train.learning_rate or PAPER_LAW(non_embedding_parameters(model))
        compute = Compute(batch_flops(unit_flops(model), recipe.train), *peak_flops(world.device, autocast))
        with world.errors_shared():
            if world.is_first:
                began_with = starting_weights(resolved, directory)
                _record(directory, model, plan, learning_rate, compute, autocast, world, began_with)
        prepare_model(model, world, recipe.train, autocast)
        if lora:
            console.print(f"trains: {training_words(model)}")
        with world.errors_shared():
            start.fill(world.device, values=not from_checkpoint)
        scoring_in_training = scoring(score, recipe, directory, model, processor, plan.hash, world)
        recipe_trainer(
            recipe,
            directory,
            model,
            processor,
            plan,
            splits,
            learning_rate,
            autocast,
            world,
            compute,
            scoring_in_training,
        ).run()
        if lora:
            write_adapted(model, processor, recipe, resolved, directory, result, world)
        else:
            write_model(model, processor, result, world)
    return result


def recipe_start(
    recipe: Recipe, processor: MM1Processor, world: World, autocast: torch.dtype | None, *, resumes: bool = False
) -> ShardedStart:
    """Return a recipe's model without contents, with an attention that works on the device.

    Args:
        recipe: The recipe with resolved models (see `mm1.model.resolve.resolve_models`).
        processor: The model's processor, which gives the token ids.
        world: The ranks that share the model.
        autocast: The precision of matrix products (see `autocast_dtype`).
        resumes: Whether a checkpoint will be loaded, so that no weights are drawn or read.
    """
    start = start_sharded(
        recipe.model,
        **token_ids(processor),
        seed=recipe.seed,
        share=share_of(world, recipe.train),
        resumes=resumes,
    )
    end_with_turns(start.model, processor)
    compiled = bool(recipe.train.compile)
    decoder = decoder_attention(
        recipe.model.language_model,
        world.device,
        autocast,
        sequence_length=recipe.data.sequence_length,
        compiled=compiled,
    )
    start.model.set_attn_implementation(
        {
            config: usable_attention(names, f"model.{part}.attention", world.device, autocast, compiled)
            for config, part, names in (
                ("vision_config", "vision", recipe.model.vision.attention),
                ("text_config", "language_model", decoder),
            )
        }
    )
    return start


def recipe_trainer(
    recipe: Recipe,
    directory: Path,
    model: MM1ForConditionalGeneration,
    processor: MM1Processor,
    plan: Plan,
    splits: dict[str, Split],
    learning_rate: float,
    autocast: torch.dtype | None,
    world: World,
    compute: Compute | None = None,
    scoring: Scoring | None = None,
) -> Trainer:
    """Return the loop that trains a model by a recipe and its plan.

    Args:
        recipe: Gives data, objective and optimizer.
        directory: The run's directory.
        model: The model on its device, prepared (see `prepare_model`).
        processor: The model's processor.
        plan: The order of training.
        splits: The plan's corpora.
        learning_rate: The peak learning rate.
        autocast: The precision of matrix products.
        world: The ranks.
        compute: The figures for FLOP/s and MFU in the log; None: the log has neither.
        scoring: Scoring during training; None: there is none.
    """
    micro, micro_batches = world.micro_batches(recipe.train)
    return Trainer(
        model,
        build_optimizer(model, recipe.train, learning_rate),
        _loader_from(recipe, plan, splits, processor, micro, world),
        _loss(recipe, model, processor, plan, world),
        recipe.train,
        directory,
        world=world,
        micro_batches=micro_batches,
        autocast=autocast if world.size == 1 else None,
        seed=recipe.seed,
        compute=compute,
        scoring=scoring,
        micro_batch_fixed_by=fixed_keys(model).get(MICRO_BATCH),
        check=partial(_check_attention, recipe, model, autocast),
        saved_only=adapter_tensors(model).keys() if recipe.train.lora else None,
    )


def _check_attention(recipe: Recipe, model: MM1ForConditionalGeneration, autocast: torch.dtype | None) -> None:
    if recipe.data.document_mask:
        check_borders(model, model.config.text_config._attn_implementation, autocast)


def _loader_from(
    recipe: Recipe, plan: Plan, splits: dict[str, Split], processor: MM1Processor, micro: int, world: World
) -> Callable[[int], DataLoader[Any]]:
    shapes = fixed_shapes(plan, micro, world.size)
    dataset = PlanDataset(plan, list(splits.values()), processor, recipe.data.document_mask, shapes)

    def loader_from(step: int) -> DataLoader[Any]:
        return build_loader(
            dataset,
            step,
            micro,
            workers=recipe.data.workers,
            rank=world.rank,
            ranks=world.size,
            pinned=world.device.type == "cuda",
        )

    return loader_from


def _loss(
    recipe: Recipe, model: MM1ForConditionalGeneration, processor: MM1Processor, plan: Plan, world: World
) -> Callable[[Batch, int], Losses]:
    micro, micro_batches = world.micro_batches(recipe.train)
    rounds = lru_cache(maxsize=1)(partial(image_rounds, plan, ranks=world.size, micro_batch_size=micro))

    def loss(batch: Batch, number: int) -> Losses:
        # The plan says whether any rank has images in this micro-batch, so the ranks need not communicate.
        step, round_ = divmod(number, micro_batches)
        return language_model_loss(model, processor, batch, recipe.train.z_loss, bool(rounds(step)[round_]))

    return loss


def _record(
    directory: Path,
    model: MM1ForConditionalGeneration,
    plan: Plan,
    learning_rate: float,
    compute: Compute,
    autocast: torch.dtype | None,
    world: World,
    began_with: str | None,
) -> None:
    """Write environment.json and print what will be trained."""
    parts = parameters_by_part(model)
    training = {
        "parameters": parts,
        "peak_learning_rate": learning_rate,
        "plan_hash": plan.hash,
        "ranks": world.size,
        "device": str(world.device),
        "dtype": str(autocast or torch.float32).removeprefix("torch."),
        "fixed_keys": fixed_keys(model),
        "peak_flops": compute.peak,
        "peak_flops_from": compute.peak_from,
        **({BEGAN_WITH: began_with} if began_with is not None else {}),
    }
    write_environment(directory, environment(**training))
    _print_training(parts, plan, learning_rate)
    console.print(f"peak of one device: {compute.peak / 1e12:.3g} TFLOP/s ({compute.peak_from})")


def _print_training(parts: dict[str, int], plan: Plan, peak: float) -> None:
    sizes = ", ".join(f"{name.replace('_', ' ')} {count / 1e6:.2f}M" for name, count in parts.items())
    info, fill = plan.info, plan.info["fill"]
    console.print(f"model: {sizes}; peak learning rate {peak:.2e}")
    console.print(
        f"plan: {info['sequences']:,} sequences of {info['sequence_length']} tokens, {info['tokens']:,} tokens, "
        f"{info['images']:,} images; fill {fill['tokens']:.1%} of the tokens ({fill['binding']:.1%} of the binding "
        "limit)"
    )
    for warning in info["warnings"]:
        console.print(warning, style="yellow")
