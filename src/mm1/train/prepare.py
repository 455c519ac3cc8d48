"""The preparation of a training: opens corpora, makes tokenizer and indexes, writes the plan.

    recipe --> splits --> tokenizer --> indexes --> RUN/plan

Training and `mm1 data plan` share it.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from mm1.data.corpus import Split
from mm1.document import Text
from mm1.errors import UserError
from mm1.files import whole_folder
from mm1.model.processor import recipe_processor
from mm1.model.resolve import resolve_models
from mm1.plan.index import index_folder, tokenizer_fingerprint
from mm1.plan.loader import PlanDataset
from mm1.plan.picture_sizes import processor_index, sizes_file
from mm1.plan.plan import Plan, write_plan
from mm1.plan.sources import fit_source, open_splits, plan_sources
from mm1.processing.processor import MM1Processor
from mm1.processing.tokenizer import load_tokenizer, train_tokenizer
from mm1.progress import console
from mm1.recipe import EncoderRecipe, Recipe, load_recipe
from mm1.train.checkpoint import checkpoints
from mm1.train.run_directory import open_run

_TOKENIZER_CHARACTERS = 2_000_000
"""The tokenizer is trained on about this many characters of each source."""

LONGEST_PLANNING = 10.0
"""Minutes of planning for which several ranks may wait."""
_PER_MINUTE = {"characters to count": 500e6, "pictures to measure": 1.5e6, "sequences to pack": 2e6}
"""Rates on two cores: docs/reference/internet-scale.md. A sequence of the paper's limits has about nine documents."""


def make_plan(
    recipe: Recipe, directory: Path | None = None, workers: int | None = None, engine: str = "processes"
) -> dict[str, Any]:
    """Plan a training without starting it.

    Args:
        recipe: The recipe of the training.
        directory: The run's directory, which keeps tokenizer and plan for the training; None: only the corpora's
            indexes are kept.
        workers: Processes; default: one per core.
        engine: Where they work: `processes` on this machine, or `ray` on a cluster.

    Returns:
        The content of plan.json, for `mm1.look.plan.plan_table`.

    Raises:
        UserError: As in `mm1.train.pretrain.pretrain`.
    """
    splits = open_splits(recipe)
    with ExitStack() as stack:
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mm1-plan-")))
        else:
            open_run(directory, recipe)
        resolved = resolve_models(recipe, weights=False)
        tokenizer = prepare_tokenizer(resolved, directory, splits)
        return prepare_plan(recipe, directory, splits, recipe_processor(resolved, tokenizer), workers, engine).info


def open_sequences(directory: Path) -> PlanDataset:
    """Open the sequences of a run's plan.

    Args:
        directory: The run's directory.

    Raises:
        UserError: If there is no plan, or a corpus has changed since it was made.
    """
    if not (directory / "plan" / "plan.json").is_file():
        raise UserError(f"{directory}: it has no plan: make one with `mm1 data plan RECIPE --to {directory}`")
    recipe, plan = load_recipe(str(directory / "recipe.yaml")), Plan(directory / "plan")
    splits = open_splits(recipe)
    for split, (name, content) in zip(splits.values(), plan.info["made_from"]["content"].items(), strict=True):
        if split.content_hash != content:
            raise UserError(
                f"{name}: the corpus has changed since {directory}/plan was made: run `mm1 data plan RECIPE --to "
                f"{directory}` again"
            )
    resolved = resolve_models(recipe, weights=False)
    processor = recipe_processor(resolved, prepare_tokenizer(resolved, directory, splits))
    return PlanDataset(plan, list(splits.values()), processor, recipe.data.document_mask)


def prepare_tokenizer(
    recipe: Recipe | EncoderRecipe,
    directory: Path,
    splits: dict[str, Split],
    train: Callable[[Iterable[str], int], PreTrainedTokenizerBase] = train_tokenizer,
) -> PreTrainedTokenizerBase:
    """Return the tokenizer of the model that training starts from, or one trained on the corpora.

    Args:
        recipe: The recipe with resolved models (see `mm1.model.resolve.resolve_models`).
        directory: The run's directory, which keeps a trained tokenizer.
        splits: The corpora to train a tokenizer on.
        train: Trains a tokenizer of a given size on texts.

    Raises:
        UserError: If the tokenizer can't be loaded.
    """
    if recipe.model.tokenizer_from is not None:
        return load_tokenizer(recipe.model.tokenizer_from)
    folder = directory / "tokenizer"
    if not folder.is_dir():
        console.print(f"training a tokenizer of {recipe.tokenizer.vocab_size:,} tokens")
        tokenizer = train(_texts(splits), recipe.tokenizer.vocab_size)
        with whole_folder(folder) as partial:
            tokenizer.save_pretrained(partial)
    try:
        return load_tokenizer(folder)
    except UserError as error:
        raise UserError(f"{error}: remove this folder, and the same command trains it anew") from None


def _texts(splits: dict[str, Split]) -> Iterator[str]:
    for split in splits.values():
        characters = 0
        for document in split.without_pictures():
            for part in document.parts:
                if isinstance(part, Text):
                    characters += len(part.text)
                    yield part.text
            if characters > _TOKENIZER_CHARACTERS:
                break


def prepare_plan(
    recipe: Recipe,
    directory: Path,
    splits: dict[str, Split],
    processor: MM1Processor,
    workers: int | None = None,
    engine: str = "processes",
    ranks: int = 1,
) -> Plan:
    """Index the splits and write the run's plan; an existing plan that is up to date is kept.

    Args:
        recipe: The recipe of the training.
        directory: The run's directory.
        splits: The corpora.
        processor: The model's processor.
        workers: Processes; default: one per core.
        engine: Where they work.
        ranks: How many processes wait for the plan.

    Raises:
        UserError: If the run has checkpoints and the plan would change: the rest of the training would not follow the
            plan that it began with. Or if several ranks would wait long.
    """
    if ranks > 1:
        _refuse_long_planning(recipe, directory, splits, processor, ranks)
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
        fixed=trained_plan_hash(directory),
        resolution={"image_size": processor.image_size, **processor.resolution} if processor.rule.cuts else None,
        chat_template=layout.fingerprint if layout and any(s.index.chat is not None for s in sources) else None,
        workers=workers,
        engine=engine,
    )


def _refuse_long_planning(
    recipe: Recipe, directory: Path, splits: dict[str, Split], processor: MM1Processor, ranks: int
) -> None:
    """Check that planning takes at most `LONGEST_PLANNING` minutes, for which many GPUs would wait.

    Raises:
        UserError: If it takes longer; the sentence has the command that plans on one machine first.
    """
    counts = {"characters to count": 0, "pictures to measure": 0, "sequences to pack": 0}
    for split in splits.values():
        if not index_folder(split, processor.tokenizer, processor.chat_layout).is_dir():
            counts["characters to count"] += split.info["characters"]
        if processor.rule.cuts and not sizes_file(split).is_file():
            counts["pictures to measure"] += split.info["images"]
    sequences = recipe.train.batch_size * recipe.train.steps
    if any(counts.values()) or _planned_sequences(directory) != sequences:
        counts["sequences to pack"] = sequences
    minutes = sum(count / _PER_MINUTE[what] for what, count in counts.items())
    if minutes > LONGEST_PLANNING:
        plan = ["data", "plan", str(directory / "recipe.yaml"), "--to", str(directory)]
        work = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
        raise UserError(
            f"planning would take about {minutes:,.0f} minutes on two cores ({work}), for which {ranks} ranks would "
            f"wait: plan first on one machine with `mm1 {shlex.join(plan)}`, then run this command again"
        )


def _planned_sequences(directory: Path) -> int:
    """Return how many sequences the run's plan has; 0 if there is no plan."""
    try:
        return int(json.loads((directory / "plan" / "plan.json").read_text())["sequences"])
    except (OSError, ValueError, KeyError):
        return 0


def trained_plan_hash(directory: Path) -> str | None:
    """Return the hash of the plan that the run's checkpoints were trained with; None if there are no checkpoints.

    Raises:
        UserError: If there are checkpoints, but no file names their plan.
    """
    if not checkpoints(directory / "checkpoints"):
        return None
    for file, key in (("environment.json", "plan_hash"), ("plan/plan.json", "hash")):
        try:
            plan_hash = json.loads((directory / file).read_text()).get(key)
        except (OSError, ValueError):
            continue
        if isinstance(plan_hash, str):
            return plan_hash
    raise UserError(
        f"{directory}: the run has checkpoints, but neither environment.json nor plan/plan.json says which plan they "
        "were trained with: restore one of these files, or start another run with --to"
    )
