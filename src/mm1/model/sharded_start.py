"""The start of a model over several ranks: no rank ever holds more of it than its own rows and one parameter.

    start_sharded(recipe, ...) --> model on the meta device --fully_shard--> ShardedStart.fill(device)

Every parameter is split by rows, as FSDP does. A rank draws fresh weights one parameter at a time and keeps its rows
(`mm1.model.fresh`); of pre-trained weights it reads its rows from the files. The weights equal those of
`mm1.model.factory.build_model`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig

from mm1.model.configuration import MM1Config
from mm1.model.factory import set_tokens
from mm1.model.fresh import FreshWeights
from mm1.model.lora import base_name, fresh_adapter, is_adapter
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.pretrained_rows import DECODER, HEAD, TOWER, Source, rows_of_decoder, rows_of_tower, rows_of_whole
from mm1.model.shape import recipe_config
from mm1.recipe import ModelRecipe


@dataclass(frozen=True)
class Share:
    """Which of several equal parts of every parameter a rank holds.

    Attributes:
        part: The part's number.
        parts: How many there are.
    """

    part: int
    parts: int

    def rows(self, length: int) -> slice:
        """Return this part's rows of a parameter, as FSDP and `torch.chunk` split it."""
        size = -(-length // self.parts)
        return slice(min(self.part * size, length), min((self.part + 1) * size, length))


class ShardedStart:
    """A model without contents, and where the rows that this rank holds come from.

    Attributes:
        model: On the meta device, buffers on the CPU.
    """

    def __init__(
        self,
        model: MM1ForConditionalGeneration,
        share: Share,
        fresh: dict[str, torch.Tensor],
        sources: dict[str, Source],
        seed: int,
    ) -> None:
        self.model = model
        self._share, self._fresh, self._sources, self._seed = share, fresh, sources, seed

    @torch.no_grad()
    def fill(self, device: torch.device, *, values: bool = True) -> None:
        """Give the sharded model contents. It may have got adapters (`mm1.model.lora`) since it was made.

        Args:
            device: Where this rank computes.
            values: Whether parameters get their starting values; False leaves them as they are, for a checkpoint.
        """
        buffers = dict(self.model.named_buffers())
        self.model.to_empty(device=device)
        self.model.tie_weights()
        for name, buffer in self.model.named_buffers():
            buffer.copy_(buffers[name])
        if not values:
            return
        for name, parameter in self.model.named_parameters():
            local = parameter.to_local() if isinstance(parameter, DTensor) else parameter
            rows = self._share.rows(len(parameter))
            adapter = is_adapter(name)
            local.copy_(fresh_adapter(name, parameter.shape, self._seed)[rows] if adapter else self._rows(name, rows))

    def _rows(self, name: str, rows: slice) -> torch.Tensor:
        name = base_name(name)
        fresh = self._fresh.pop(name, None)
        source = next((source for start, source in self._sources.items() if name.startswith(start)), None)
        values = None if source is None else source(name, rows)
        values = fresh if values is None else values
        assert values is not None, name
        return values


def start_sharded(
    recipe: ModelRecipe,
    *,
    vocab_size: int,
    image_token_id: int,
    bos_token_id: int | None = None,
    eos_token_id: int | None = None,
    pad_token_id: int | None = None,
    seed: int = 0,
    share: Share,
    resumes: bool = False,
) -> ShardedStart:
    """Return the model of a recipe without contents, ready to be sharded and filled.

    Args:
        recipe: As of `mm1.model.factory.build_model`, and so are the next five.
        vocab_size: Length of the tokenizer.
        image_token_id: Id of the tokenizer's `<image>`.
        bos_token_id: As the tokenizer has it.
        eos_token_id: As the tokenizer has it.
        pad_token_id: As the tokenizer has it.
        seed: Of the fresh weights.
        share: Which rows of every parameter this rank holds.
        resumes: Whether a checkpoint will be loaded, so that no value is drawn or read.

    Raises:
        UserError: If sizes do not fit each other, or a pre-trained part can't be loaded.
    """
    config = recipe_config(recipe, vocab_size, image_token_id)
    whole = recipe.from_
    if whole is None:
        tokens = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
        set_tokens(config.text_config, tokens)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        rows = share.rows
        with FreshWeights(lambda t: t[rows(len(t))].clone(), draw=not resumes and whole is None) as fresh:
            model = MM1ForConditionalGeneration(config)
    model.tie_weights()  # the library does so only where it draws
    if whole is None:
        set_tokens(model.generation_config, tokens)
    elif (Path(whole) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(whole)
    parts = {name: part for name, p in model.named_parameters() if (part := fresh.part(p)) is not None}
    return ShardedStart(
        model.train(), share, parts, {} if resumes else _sources(recipe, config, vocab_size, seed), seed
    )


def _sources(recipe: ModelRecipe, config: MM1Config, vocab_size: int, seed: int) -> dict[str, Source]:
    """Return where pre-trained parameters come from, by the beginning of their names."""
    if recipe.from_ is not None:
        return {"": rows_of_whole(recipe.from_, config)}
    sources: dict[str, Source] = {}
    if recipe.vision.from_ is not None:
        sources[TOWER] = rows_of_tower(recipe.vision.from_, config)
    if recipe.language_model.from_ is not None:
        sources[DECODER] = sources[HEAD] = rows_of_decoder(recipe, config, vocab_size, seed)
    return sources
