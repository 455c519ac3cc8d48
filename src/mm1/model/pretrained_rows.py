"""Rows of pre-trained parameters: what a rank that holds a part of a model reads of the files.

A source takes the name of a parameter of `MM1ForConditionalGeneration` and some of its rows, and returns their values,
or None where a recipe wants fresh ones. Values equal those of `mm1.model.factory.build_model`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from transformers import CLIPVisionModel

from mm1.model.configuration import MM1Config
from mm1.model.convolutional import ConvolutionalTowerConfig
from mm1.model.factory import fresh_rows, load_decoder, load_whole, whole_config
from mm1.model.open_clip import WEIGHTS, check_names, convert, find_open_clip, open_clip_vision_config, weights_file
from mm1.model.positions import ANTIALIASED, resize_positions
from mm1.model.tensor_files import TensorFiles
from mm1.model.towers import load_tower, tower_config
from mm1.progress import console
from mm1.recipe import ModelRecipe

Source = Callable[[str, slice], torch.Tensor | None]

TOWER, DECODER, HEAD = "model.vision_tower.", "model.language_model.", "lm_head.weight"
_EMBEDDING = "embed_tokens.weight"
_EXPERTS = ".mlp.experts."


def rows_of_whole(source: str, config: MM1Config) -> Source:
    """Return the source of a recipe that starts from a whole model.

    Args:
        source: A model's folder.
        config: Of the model to be trained, whose images may have another size.

    Raises:
        UserError: If the folder has no weights.
    """
    files, old = TensorFiles(Path(source)), whole_config(source)
    antialias = old.vision_config.model_type in ANTIALIASED
    whole: dict[str, torch.Tensor] = {}

    def read(name: str, rows: slice) -> torch.Tensor:
        if name not in files and not whole:
            _say_whole("model.from", source)
            whole.update(
                load_whole(source, config.vision_config.image_size, config.text_config.vocab_size).state_dict()
            )
        if whole:
            return whole[name][rows]
        if name.startswith((TOWER, "model.connector.")) and _is_table(name):
            return _resized(files.read(name), old.patch_grid, config.patch_grid, antialias)[rows]
        return files.read(name, rows)

    return read


def rows_of_tower(source: str, config: MM1Config) -> Source:
    """Return the source of a pre-trained tower. Its tensors are small: they are read whole, one at a time.

    Args:
        source: As of `mm1.model.towers.load_tower`.
        config: Of the model to be trained.
    """
    if isinstance(config.vision_config, ConvolutionalTowerConfig):  # small, and its files have the backbone's names
        tensors = load_tower(source).state_dict()
        return lambda name, rows: tensors[name.removeprefix(TOWER)][rows]
    own, side = tower_config(source), config.patch_grid
    old = own.image_size // own.patch_size
    open_clip = find_open_clip(source)
    antialias = open_clip is not None or own.model_type in ANTIALIASED
    stored = _open_clip_tensors(open_clip) if open_clip else _tower_tensors(source)
    whole: dict[str, torch.Tensor] = {}

    def read(name: str, rows: slice) -> torch.Tensor:
        name = name.removeprefix(TOWER)
        if name not in stored and not whole:
            _say_whole("model.vision.from", source)
            whole.update(load_tower(source, config.vision_config.image_size).state_dict())
        if whole:
            return whole[name][rows]
        tensor = stored[name]()
        return (_resized(tensor, old, side, antialias) if _is_table(name) else tensor)[rows]

    return read


def rows_of_decoder(recipe: ModelRecipe, config: MM1Config, vocab_size: int, seed: int) -> Source:
    """Return the source of a pre-trained decoder, its vocabulary grown and its FFNs copied to experts as needed.

    Args:
        recipe: Its `language_model.from` is a model's folder.
        config: Of the model to be trained.
        vocab_size: Length of the tokenizer.
        seed: Of the rows of new words.
    """
    source = str(recipe.language_model.from_)
    files = TensorFiles(Path(source))
    prefix = next((p for p in (DECODER, "model.") if p + _EMBEDDING in files), "")
    std = config.text_config.initializer_range
    whole: dict[str, torch.Tensor] = {}

    def stored(name: str, rows: slice) -> torch.Tensor:
        full = name if name == HEAD else prefix + name
        if full not in files and not whole:
            _say_whole("model.language_model.from", source)
            decoder = load_decoder(source, vocab_size, seed)
            whole.update(decoder.base_model.state_dict())
            whole[HEAD] = decoder.get_output_embeddings().weight.detach()
        return whole[name][rows] if whole else files.read(full, rows)

    def words(name: str, rows: slice) -> torch.Tensor:
        full = name if name == HEAD else prefix + name
        known = files.length(full) if full in files and not whole else rows.stop
        old = stored(name, slice(min(rows.start, known), min(rows.stop, known)))
        if rows.stop <= known:
            return old
        new = fresh_rows(config.text_config.vocab_size - known, old.shape[1], std, seed, head=name == HEAD)
        return torch.cat([old.float(), new[max(0, rows.start - known) : rows.stop - known]])

    def read(name: str, rows: slice) -> torch.Tensor | None:
        name = name.removeprefix(DECODER)
        if name in (_EMBEDDING, HEAD):
            return words(name, rows)
        if _EXPERTS in name:
            return experts(name, rows) if recipe.language_model.upcycle else None
        if config.moe_num_experts and name.endswith(".mlp.gate.weight"):
            return None  # a router
        return stored(name, rows)

    def experts(name: str, rows: slice) -> torch.Tensor:
        layer, _, part = name.partition(_EXPERTS)
        parts = ("gate", "up") if part == "gate_up_proj" else ("down",)
        every = slice(None)
        ffn = torch.cat([stored(f"{layer}.mlp.{part}_proj.weight", every) for part in parts])
        return ffn.expand(rows.stop - rows.start, *ffn.shape)

    return read


def _open_clip_tensors(file: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Return the tensors of an open_clip checkpoint by the names of `transformers`; a call reads one."""
    weights = weights_file(file.parent) or file.parent / WEIGHTS[0]
    files = TensorFiles(file.parent, weights.name)
    found: dict[str, Callable[[], torch.Tensor]] = {}
    for name in files.names:
        if name.startswith("visual.") and name != "visual.proj":
            for new in convert({name.removeprefix("visual."): torch.empty(3, device="meta")}):
                found[new] = partial(_read_open_clip, files, name, new)
    with torch.device("meta"):
        check_names(found, CLIPVisionModel(open_clip_vision_config(file)), weights)
    return found


def _tower_tensors(source: str) -> dict[str, Callable[[], torch.Tensor]]:
    files = TensorFiles(Path(source))
    prefix = "vision_model." if any(name.startswith("vision_model.") for name in files.names) else ""
    return {name.removeprefix(prefix): partial(files.read, name) for name in files.names if name.startswith(prefix)}


def _read_open_clip(files: TensorFiles, name: str, new: str) -> torch.Tensor:
    return convert({name.removeprefix("visual."): files.read(name)})[new]


def _is_table(name: str) -> bool:
    """Whether a tensor holds position embeddings of patches."""
    return name.endswith(("position_embedding.weight", "position_embeddings", "connector.positions"))


def _resized(table: torch.Tensor, old_side: int, side: int, antialias: bool) -> torch.Tensor:
    """Return a table for another number of patches; DINOv2's has a first dimension of 1."""
    if table.ndim == 3:
        return _resized(table[0], old_side, side, antialias)[None]
    return table if old_side == side else resize_positions(table.float(), old_side, side, antialias)


def _say_whole(key: str, source: str) -> None:
    console.print(
        f"{key}: '{source}' has its tensors under other names than its library gives them today: every process loads "
        "it whole, which takes memory of the machine; loaded and saved again by transformers, it would not",
        style="yellow",
    )
