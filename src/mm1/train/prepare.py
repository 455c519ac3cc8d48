"""What comes before training: corpora opened, tokenizer and indexes made, the plan written.

    recipe --> splits --> tokenizer --> indexes --> RUN/plan

Shared by training, which goes on from here, and by `mm1 data plan`, which only wants to know.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mm1.data.chats import fit_conversations
from mm1.data.corpus import Split, data_directory, open_split
from mm1.data.index import Index, tokenizer_fingerprint
from mm1.data.loader import PlanDataset
from mm1.data.picture_sizes import processor_index
from mm1.data.plan import Plan, Source, write_plan
from mm1.document import Text
from mm1.errors import UserError
from mm1.model.pretrained import model_folder, pretrained_config, resolve_language_model
from mm1.model.towers import pixel_statistics
from mm1.processing.chat import default_chat_template, read_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import load_tokenizer, train_tokenizer
from mm1.progress import console
from mm1.recipe import DataRecipe, EncoderRecipe, ModelRecipe, Recipe, load_recipe
from mm1.train.checkpoint import checkpoints
from mm1.train.run import open_run

_TOKENIZER_CHARACTERS = 2_000_000
"""Characters of each source that the tokenizer is trained on, at most."""


def make_plan(
    recipe: Recipe, directory: Path | None = None, workers: int | None = None, engine: str = "processes"
) -> dict[str, Any]:
    """Plan a training without starting it.

    Args:
        recipe: What is to be trained.
        directory: The run's, where tokenizer and plan are kept for the training; None: nothing is kept but the
            corpora's indexes.
        workers: Processes that count tokens; default: as many as there are cores.
        engine: Where tokens are counted: `processes` of this machine, or `ray` for a cluster.

    Returns:
        The content of plan.json, for `mm1.data.plan_table.plan_table`.

    Raises:
        UserError: As `mm1.train.pretrain.pretrain`.
    """
    splits = open_splits(recipe)
    with ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm1-plan-")))
        else:
            open_run(directory, recipe)
        tokenizer = prepare_tokenizer(recipe, directory, decoder_folder(recipe), splits)
        return prepare_plan(recipe, directory, splits, recipe_processor(recipe, tokenizer), workers, engine).info


def recipe_processor(recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> MM1Processor:
    """Return the processor of a recipe's model: its image size and tokens per image, its tower's pixel statistics."""
    model = recipe.model
    if model.from_ is not None:
        processor = brought_processor(model.from_, model)
    else:
        mean, std = pixel_statistics(model.vision.from_)
        processor = build_processor(
            tokenizer, model.vision.image_size, model.connector.num_tokens, mean, std, resolution=model.resolution
        )
    template: Any = processor.chat_template
    if model.chat_template is not None:
        template = read_chat_template(Path(model.chat_template))
    elif template is None and "chat" in recipe.data.mixture:
        template = default_chat_template()
    processor.chat_template = template
    return processor


def brought_processor(source: str, model: ModelRecipe) -> MM1Processor:
    """Return the processor of the model that training starts from, with what the recipe changes.

    Args:
        source: The recipe's `model.from`.
        model: The recipe's section.

    Raises:
        UserError: If there is no such model, or it has no processor.
    """
    folder = model_folder(source)
    config: Any = pretrained_config(folder, "model.from")
    try:
        processor: MM1Processor = MM1Processor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise UserError(f"model.from: '{source}' has no processor that can be loaded ({error})") from None
    size = model.image_size or processor.image_size
    processor.image_processor.size = {"height": size, "width": size}
    if getattr(config, "connector", None) == "mlp":  # a token for each patch
        processor.tokens_per_image = (size // config.vision_config.patch_size) ** 2
    if "resolution" in model.model_fields_set:
        processor.set_resolution(model.resolution)
    return processor


def open_sequences(directory: Path) -> PlanDataset:
    """Open the sequences of a run's plan, to look at them.

    Args:
        directory: The run's.

    Raises:
        UserError: If there is no plan, or a corpus has changed since.
    """
    if not (directory / "plan" / "plan.json").is_file():
        raise UserError(f"{directory}: no plan there: make one with `mm1 data plan RECIPE --to {directory}`")
    recipe, plan = load_recipe(str(directory / "recipe.yaml")), Plan(directory / "plan")
    splits = open_splits(recipe)
    for split, (name, content) in zip(splits.values(), plan.info["made_from"]["content"].items(), strict=True):
        if split.content_hash != content:
            raise UserError(f"{name}: the corpus has changed since {directory}/plan was made: plan again")
    tokenizer = prepare_tokenizer(recipe, directory, decoder_folder(recipe), splits)
    processor = recipe_processor(recipe, tokenizer)
    return PlanDataset(plan, list(splits.values()), processor, recipe.data.document_mask)


def open_splits(recipe: Recipe | EncoderRecipe) -> dict[str, Split]:
    """Open the splits of all kinds with a weight, in the recipe's order.

    Raises:
        UserError: If one is missing, or listed twice.
    """
    names = [s.corpus for mix in recipe.data.mixture.values() if mix.weight > 0 for s in mix.sources]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise UserError(f"data.mixture: '{twice[0]}' is listed twice: give it one place and one weight")
    return {name: open_split(name) for name in names}


def decoder_folder(recipe: Recipe) -> Path | str | None:
    """Return where the recipe's pre-trained decoder or whole model is; None if the decoder is trained from scratch."""
    if recipe.model.from_ is not None:
        return model_folder(recipe.model.from_)
    source = recipe.model.language_model.from_
    return None if source is None else resolve_language_model(source, data_directory() / "weights")


def vocabulary_size(recipe: Recipe) -> int:
    """Return how many tokens a recipe's tokenizer has, `<image>` included, before it is trained or after."""
    folder = decoder_folder(recipe)
    return recipe.tokenizer.vocab_size if folder is None else len(load_tokenizer(folder))


def prepare_tokenizer(
    recipe: Recipe | EncoderRecipe,
    directory: Path,
    pretrained: Path | str | None,
    splits: dict[str, Split],
    train: Callable[[Iterable[str], int], PreTrainedTokenizerBase] = train_tokenizer,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of a pre-trained model, or one trained on the corpora (kept in the run directory)."""
    if pretrained is not None:
        return load_tokenizer(pretrained)
    folder = directory / "tokenizer"
    if not folder.is_dir():
        console.print(f"train a tokenizer of {recipe.tokenizer.vocab_size:,} tokens")
        tokenizer = train(_texts(splits), recipe.tokenizer.vocab_size)
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        tokenizer.save_pretrained(partial)
        partial.rename(folder)
    return load_tokenizer(folder)


def _texts(splits: dict[str, Split]) -> Iterator[str]:
    for split in splits.values():
        characters = 0
        for document in split:
            for part in document.parts:
                if isinstance(part, Text):
                    characters += len(part.text)
                    yield part.text
            if characters > _TOKENIZER_CHARACTERS:
                break


def plan_sources(recipe: Recipe | EncoderRecipe, splits: dict[str, Split], indexes: dict[str, Index]) -> list[Source]:
    """Return the sources of all kinds with a weight, in the recipe's order.

    Args:
        recipe: Its mixture.
        splits: As `open_splits` gives them.
        indexes: Of the splits, by name.
    """
    return [
        Source(s.corpus, kind, s.weight, splits[s.corpus].content_hash, indexes[s.corpus])
        for kind, mix in recipe.data.mixture.items()
        if mix.weight > 0
        for s in mix.sources
    ]


def prepare_plan(
    recipe: Recipe,
    directory: Path,
    splits: dict[str, Split],
    processor: MM1Processor,
    workers: int | None = None,
    engine: str = "processes",
) -> Plan:
    """Index the splits and write the run's plan; one that is there and right is kept.

    Raises:
        UserError: If the run has checkpoints and its plan would be another now: what is left of the training
            would not see what the plan promised.
    """
    indexes = {name: processor_index(split, processor, workers, engine) for name, split in splits.items()}
    sources = [
        fit_source(source, splits[source.name], processor, recipe.data)
        for source in plan_sources(recipe, splits, indexes)
    ]
    layout = processor.chat_layout
    return write_plan(
        directory / "plan",
        sources,
        recipe.data,
        tokenizer_fingerprint=tokenizer_fingerprint(processor.tokenizer),
        tokens_per_image=processor.tokens_per_image,
        batch_size=recipe.train.batch_size,
        steps=recipe.train.steps,
        seed=recipe.seed,
        fixed=begun_by(directory),
        resolution={"image_size": processor.image_size, **processor.resolution} if processor.rule.cuts else None,
        chat_template=layout.fingerprint if layout and any(s.index.chat is not None for s in sources) else None,
    )


def begun_by(directory: Path) -> str | None:
    """Return the hash of the plan by which a run was trained up to its checkpoints; None if there are none.

    Raises:
        UserError: If there are checkpoints, but nothing says by which plan.
    """
    if not checkpoints(directory / "checkpoints"):
        return None
    for file, key in (("environment.json", "plan_hash"), ("plan/plan.json", "hash")):
        try:
            found = json.loads((directory / file).read_text()).get(key)
        except (OSError, ValueError):
            continue
        if isinstance(found, str):
            return found
    raise UserError(
        f"{directory}: it has checkpoints, but neither environment.json nor plan/plan.json says by which plan they "
        "were trained: put one of them back, or begin another run with --to"
    )


def fit_source(source: Source, split: Split, processor: MM1Processor, data: DataRecipe) -> Source:
    """Return a source whose conversations fit a sequence each; its warnings say what was shortened or left out."""
    if source.index.chat is None:
        return source
    fitted = fit_conversations(
        source.index, processor.tokens_per_image, data.sequence_length, data.max_images(source.kind)
    )
    room = f"a sequence ({data.sequence_length:,} tokens, {data.max_images(source.kind)} images)"
    warnings = [
        f"{source.name}: {len(rows):,} of {len(split):,} conversations {what}, for example "
        + ", ".join(f"'{split[int(row)].id}'" for row in rows[:3])
        for rows, what in (
            (fitted.shortened, f"are longer than {room} and end behind the last answer that fits"),
            (fitted.left_out, f"are left out, since their first answer does not fit {room}"),
        )
        if len(rows)
    ]
    return replace(source, index=fitted.index, documents=fitted.documents, warnings=tuple(warnings))
