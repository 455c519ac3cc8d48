"""The start of a model over several ranks: no rank ever holds more of it than its own rows and one parameter.

    start_sharded(recipe, ...) --> model on the meta device --fully_shard--> ShardedStart.fill(device)

Every parameter is split by rows, as FSDP does; a layer's experts are split by expert first. A rank draws fresh weights
one parameter at a time and keeps its part (`mm1.model.fresh`); of pre-trained weights it reads its rows from the files.
The weights equal those of `mm1.model.factory.build_model`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import GenerationConfig

from mm1.errors import UserError
from mm1.model.configuration import MM1Config
from mm1.model.factory import set_tokens
from mm1.model.fresh import FreshWeights, without_contents
from mm1.model.lora import base_name, fresh_adapter, is_adapter
from mm1.model.modeling import MM1ForConditionalGeneration
from mm1.model.pretrained_rows import DECODER, HEAD, TOWER, Source, rows_of_decoder, rows_of_tower, rows_of_whole
from mm1.model.shape import recipe_config
from mm1.model.sparse import Experts
from mm1.recipe import ModelRecipe


@dataclass(frozen=True)
class Share:
    """Which of several equal parts of every parameter a rank holds.

    Attributes:
        part: The part's number.
        parts: How many there are.
        expert_parallel: Ranks over which the experts of a layer are spread; None: as many as divide both the parts and
            the experts.
    """

    part: int
    parts: int
    expert_parallel: int | None = None

    def expert_ranks(self, experts: int) -> int:
        """Return over how many ranks the experts of a layer are spread.

        Args:
            experts: Experts of a layer; 0: the model is dense.

        Raises:
            UserError: If parts or experts can't be divided so.
        """
        wanted = self.expert_parallel
        if not experts or wanted is None:
            return math.gcd(experts, self.parts) if experts else 1
        for number, name in ((experts, "experts of a layer"), (self.parts, "ranks that share the model")):
            if number % wanted:
                raise UserError(
                    f"train.expert_parallel {wanted} does not divide the {number} {name}: set it to a divisor of "
                    f"{math.gcd(experts, self.parts)}, or leave it out"
                )
        return wanted

    def rows(self, length: int) -> slice:
        """Return this part's rows of a parameter, as FSDP and `torch.chunk` split it."""
        return _part(length, self.part, self.parts)

    def of_experts(self, experts: int, rows: int) -> tuple[slice, slice]:
        """Return this part's experts and their rows, of weights `(experts, rows, columns)`.

        Neighbouring ranks hold different experts. Where there are more ranks than experts, several hold rows of one.
        Experts that aren't spread are split as other parameters are.
        """
        ranks = self.expert_ranks(experts)
        if ranks == 1:
            return self.rows(experts), slice(rows)
        return _part(experts, self.part % ranks, ranks), _part(rows, self.part // ranks, self.parts // ranks)


def _part(length: int, part: int, parts: int) -> slice:
    size = -(-length // parts)
    return slice(min(part * size, length), min((part + 1) * size, length))


class ShardedStart:
    """A model without contents, and where the rows that this rank holds come from.

    Attributes:
        model: On the meta device, buffers on the CPU.
    """

    def __init__(
        self,
        model: MM1ForConditionalGeneration,
        share: Share,
        sources: dict[str, Source],
        seed: int,
    ) -> None:
        self.model = model
        self._share, self._sources, self._seed = share, sources, seed
        self._fresh = FreshWeights(model, seed)
        modules = {name: module for name, module in model.named_modules() if isinstance(module, Experts)}
        self._experts = {f"{name}.{own}" for name, module in modules.items() for own, _ in module.named_parameters()}

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
            if is_adapter(name):
                rows = self._share.rows(len(parameter))
                local.copy_(fresh_adapter(name, parameter.shape, self._seed)[rows])
            else:
                local.copy_(self.part_of(name, parameter.shape))

    def part_of(self, name: str, shape: torch.Size) -> torch.Tensor:
        """Return this rank's part of a parameter."""
        name = base_name(name)
        source = next((source for start, source in self._sources.items() if name.startswith(start)), None)
        part = self._share.of_experts(shape[0], shape[1]) if name in self._experts else (self._share.rows(shape[0]),)
        values = None if source is None else source(name, part[0])
        if values is None:
            return self._fresh.draw(name)[part]
        return values[:, part[1]] if len(part) > 1 else values


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
    share.expert_ranks(config.moe_num_experts)
    whole = recipe.from_
    if whole is None:
        tokens = {"bos_token_id": bos_token_id, "eos_token_id": eos_token_id, "pad_token_id": pad_token_id}
        set_tokens(config.text_config, tokens)
    with without_contents():
        model = MM1ForConditionalGeneration(config)
    model.tie_weights()  # the library does so only where it draws
    if whole is None:
        set_tokens(model.generation_config, tokens)
    elif (Path(whole) / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(whole)
    sources = {} if resumes else _sources(recipe, config, vocab_size, seed)
    _fill_statistics(model, sources)
    return ShardedStart(model.train(), share, sources, seed)


@torch.no_grad()
def _fill_statistics(model: MM1ForConditionalGeneration, sources: dict[str, Source]) -> None:
    """Give a pre-trained tower its batch norms' statistics: buffers, which every rank has whole."""
    for name, module in model.named_modules():
        for buffer in ("running_mean", "running_var") if isinstance(module, nn.BatchNorm2d) else ():
            full = f"{name}.{buffer}"
            source = next((source for start, source in sources.items() if full.startswith(start)), None)
            if source is not None:
                values = module.get_buffer(buffer)
                values.copy_(source(full, slice(len(values))))


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
