"""Multimodal pre-training: from a recipe to a trained model in Hugging Face format.

recipe --> corpora, tokenizer, indexes --> plan --> model --> Trainer --> RUN/model
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase

import mm1
from mm1.data.corpus import Split, data_directory, open_split
from mm1.data.index import build_index, tokenizer_fingerprint
from mm1.data.loader import Batch, PlanDataset, build_loader
from mm1.data.plan import Plan, Source, write_plan
from mm1.document import Text
from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.factory import build_model
from mm1.model.pretrained import resolve_language_model
from mm1.model.sizes import non_embedding_parameters, parameters_by_part
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import load_tokenizer, train_tokenizer
from mm1.progress import console
from mm1.recipe import Recipe
from mm1.train.loop import Trainer
from mm1.train.objective import Losses, language_model_loss
from mm1.train.optimizer import build_optimizer, law_learning_rate
from mm1.train.parallel import World, joined, prepare_model, whole
from mm1.train.run import environment, open_run, write_environment

_TOKENIZER_CHARACTERS = 2_000_000
"""Characters of each source that the tokenizer is trained on, at most."""


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
        if not world.first:
            world.wait()
        splits = _open_splits(recipe)
        open_run(directory, recipe)
        result = directory / "model"
        if (result / "config.json").is_file():
            console.print(f"{result} is there already: nothing left to train")
            return result
        decoder = _decoder_folder(recipe)
        tokenizer = _tokenizer(recipe, directory, decoder, list(splits.values()))
        plan = _plan(recipe, directory, splits, tokenizer)
        if world.first:
            world.wait()
        world.agree(recipe=recipe.to_yaml(), plan=plan.hash, code=mm1.__version__)
        processor = build_processor(tokenizer, recipe.model.vision.image_size, recipe.model.connector.num_tokens)
        model = _model(recipe, processor, decoder, world.device)
        parts, peak = parameters_by_part(model), _peak_learning_rate(recipe, model)
        autocast = _autocast(recipe, world.device)
        if world.first:
            facts = {"parameters": parts, "peak_learning_rate": peak, "plan_hash": plan.hash, "ranks": world.size}
            precision = str(autocast or torch.float32).removeprefix("torch.")
            write_environment(directory, environment(**facts, device=str(world.device), dtype=precision))
            _announce(parts, plan, peak)
        prepare_model(model, world, recipe.train, autocast)
        _trainer(recipe, directory, model, processor, plan, list(splits.values()), peak, autocast, world).run()
        _export(model, processor, result, world)
    return result


def _open_splits(recipe: Recipe) -> dict[str, Split]:
    """Open the splits of all kinds with a weight, in the recipe's order."""
    names = [s.corpus for mix in recipe.data.mixture.values() if mix.weight > 0 for s in mix.sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.mixture: '{twice[0]}' is listed twice: give it one place and one weight")
    return {name: open_split(name) for name in names}


def _decoder_folder(recipe: Recipe) -> Path | str | None:
    source = recipe.model.language_model.from_
    return None if source is None else resolve_language_model(source, data_directory() / "weights")


def _tokenizer(
    recipe: Recipe, directory: Path, decoder: Path | str | None, splits: list[Split]
) -> PreTrainedTokenizerBase:
    """Return the decoder's own tokenizer, or one trained on the corpora (kept in the run directory)."""
    if decoder is not None:
        return load_tokenizer(decoder)
    folder = directory / "tokenizer"
    if not folder.is_dir():
        console.print(f"train a tokenizer of {recipe.tokenizer.vocab_size:,} tokens")
        tokenizer = train_tokenizer(_texts(splits), recipe.tokenizer.vocab_size)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return load_tokenizer(folder)


def _texts(splits: list[Split]) -> Iterator[str]:
    for split in splits:
        characters = 0
        for document in split:
            for part in document.parts:
                if isinstance(part, Text):
                    characters += len(part.text)
                    yield part.text
            if characters > _TOKENIZER_CHARACTERS:
                break


def _plan(recipe: Recipe, directory: Path, splits: dict[str, Split], tokenizer: PreTrainedTokenizerBase) -> Plan:
    sources = [
        Source(s.corpus, kind, s.weight, splits[s.corpus].content_hash, build_index(splits[s.corpus], tokenizer))
        for kind, mix in recipe.data.mixture.items()
        if mix.weight > 0
        for s in mix.sources
    ]
    return write_plan(
        directory / "plan",
        sources,
        recipe.data,
        tokenizer_fingerprint=tokenizer_fingerprint(tokenizer),
        tokens_per_image=recipe.model.connector.num_tokens,
        batch_size=recipe.train.batch_size,
        steps=recipe.train.steps,
        seed=recipe.seed,
    )


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
    batch = recipe.train.batch_size
    micro = recipe.train.micro_batch_size or max(1, batch // world.size)
    if batch % (micro * world.size):
        raise UserError(
            f"train.batch_size {batch} is not a multiple of {world.size} ranks x train.micro_batch_size {micro}"
        )
    images = _images_of_micro_batches(plan, micro * world.size)

    def loader_from(step: int) -> DataLoader[Any]:
        workers = recipe.data.workers
        return build_loader(dataset, step, micro, workers=workers, rank=world.rank, ranks=world.size)

    def loss(batch: Batch, number: int) -> Losses:
        return language_model_loss(model, processor, batch, recipe.train.z_loss, bool(images[number]))

    return Trainer(
        model,
        build_optimizer(model, recipe.train, peak),
        loader_from,
        loss,
        recipe.train,
        directory,
        world=world,
        micro_batches=batch // (micro * world.size),
        autocast=autocast if world.size == 1 else None,
        seed=recipe.seed,
    )


def _images_of_micro_batches(plan: Plan, sequences: int) -> np.ndarray:
    """Return how many images each micro-batch has over all ranks: known from the plan, nobody has to be asked.

    Args:
        plan: The order of training.
        sequences: In a micro-batch, over all ranks.
    """
    if not len(plan):
        return np.zeros(0, np.int64)
    per_sequence = np.add.reduceat(plan.images.astype(np.int64), plan.first_piece)
    return per_sequence.reshape(-1, sequences).sum(1)


def _autocast(recipe: Recipe, device: torch.device) -> torch.dtype | None:
    """Return the precision of matrix products (None: float32 throughout)."""
    dtype = recipe.train.dtype
    if dtype == "auto":
        dtype = "bfloat16" if _bfloat16_pays(device) else "float32"
    return torch.bfloat16 if dtype == "bfloat16" else None


def _bfloat16_pays(device: torch.device) -> bool:
    """Whether bfloat16 is faster: on GPUs, and on CPUs that multiply it in hardware (benchmarks/README.md)."""
    return device.type != "cpu" or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def _announce(parts: dict[str, int], plan: Plan, peak: float) -> None:
    sizes = ", ".join(f"{name.replace('_', ' ')} {count / 1e6:.2f}M" for name, count in parts.items())
    info, fill = plan.info, plan.info["fill"]
    console.print(f"model: {sizes}; peak learning rate {peak:.2e}")
    console.print(
        f"plan: {info['sequences']:,} sequences of {info['sequence_length']} tokens, {info['tokens']:,} tokens, "
        f"{info['images']:,} images, fill {fill['tokens']:.1%} of the tokens ({fill['binding']:.1%} of whichever "
        "limit binds)"
    )


def _export(model: MM1ForConditionalGeneration, processor: MM1Processor, folder: Path, world: World) -> None:
    """Write model and processor in Hugging Face format, complete or not at all."""
    tensors = {name: whole(tensor) for name, tensor in model.state_dict().items()}
    if not world.first:
        return
    partial = folder.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        model.save_pretrained(partial, state_dict=tensors)
        processor.save_pretrained(partial)
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"{folder}: the model could not be written ({error}): free some space") from error
