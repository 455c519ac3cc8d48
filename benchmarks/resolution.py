"""What does a picture cost in each mode: measured seconds of a training step beside tokens and FLOPs?

    python benchmarks/resolution.py            # a tower of 8 layers at 112 px, up to 448: about 4 minutes on two cores
    python benchmarks/resolution.py --tiny     # the same in seconds, to see that it runs; the figures mean nothing

A step is forward and backward over some pictures, each with a question and an answer, packed into one row, in float32
on the CPU. Modes take turns, so that a machine that gets slower meanwhile slows all of them; the figure is the median.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from dataclasses import dataclass

import torch
from rich.console import Console
from rich.table import Table

from mm1.model import MM1ForConditionalGeneration
from mm1.model.positions import resize_images
from mm1.model.shape import recipe_config
from mm1.recipe import ModelRecipe
from mm1.scaling.description_table import short
from mm1.scaling.picture_costs import PictureCost, picture_costs

VOCABULARY = 8192
WORDS = 32
"""Text tokens after a picture; half of them are learned."""


@dataclass
class Mode:
    """A mode with its model and its inputs.

    Attributes:
        cost: What is counted.
        model: At the mode's image size.
        inputs: Of some pictures.
    """

    cost: PictureCost
    model: MM1ForConditionalGeneration
    inputs: dict[str, torch.Tensor]

    def step(self) -> float:
        """Make one training step; return its seconds."""
        began = time.perf_counter()
        self.model(**self.inputs).loss.backward()
        self.model.zero_grad(set_to_none=True)
        return time.perf_counter() - began


def model_recipe(tiny: bool) -> ModelRecipe:
    """Return a model of 30 M parameters, or a tiny one."""
    width, layers, size = (32, 2, 56) if tiny else (256, 8, 112)
    return ModelRecipe.model_validate(
        {
            "vision": {
                "image_size": size,
                "patch_size": 14,
                "hidden_size": width,
                "num_layers": layers,
                "num_heads": max(1, width // 64),
            },
            "connector": {"kind": "c_abstractor", "num_tokens": 16, "hidden_size": width, "depth": 1},
            "language_model": {
                "hidden_size": 2 * width,
                "num_layers": layers,
                "num_heads": max(1, width // 32),
                "attention": "sdpa_packed",
            },
        }
    )


def build(recipe: ModelRecipe, cost: PictureCost, pictures: int) -> Mode:
    """Return a mode with a model and inputs of `pictures` pictures."""
    torch.manual_seed(0)
    model = MM1ForConditionalGeneration(recipe_config(recipe, VOCABULARY)).train()
    resize_images(model, cost.size)
    model.set_attn_implementation({"text_config": recipe.language_model.attention})
    length = cost.tokens + WORDS
    ids = torch.randint(0, VOCABULARY - 1, (1, pictures * length))
    starts = torch.arange(pictures) * length
    images = (starts[:, None] + torch.arange(cost.tokens)).flatten()
    ids[0, images] = model.config.image_token_id
    target = (starts[:, None] + torch.arange(length - WORDS // 2, length)).flatten()
    inputs = {
        "input_ids": ids,
        "position_ids": torch.arange(length).repeat(pictures)[None],
        "pixel_values": torch.randn(pictures * cost.images, 3, cost.size, cost.size),
        "image_positions": images,
        "target_positions": target - 1,
        "target_ids": ids[0, target],
    }
    return Mode(cost, model, inputs)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="seconds instead of minutes; the figures mean nothing")
    parser.add_argument("--image", type=int, nargs=2, default=(448, 448), metavar=("WIDTH", "HEIGHT"))
    parser.add_argument("--pictures", type=int, default=2, help="in a step")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    recipe = model_recipe(arguments.tiny)
    base = recipe.vision.image_size
    sizes = (base * 2, base * 4)
    width, height = arguments.image
    costs = picture_costs(width, height, recipe, VOCABULARY, context=512, interpolated=sizes)
    pictures, rounds = (1, 1) if arguments.tiny else (arguments.pictures, arguments.rounds)
    modes = [build(recipe, cost, pictures) for cost in costs]
    for mode in modes:
        mode.step()
    seconds: list[list[float]] = [[] for _ in modes]
    for _ in range(rounds):
        for mode, taken in zip(modes, seconds, strict=True):
            taken.append(mode.step() / pictures)
    table = Table(title=f"a picture of {arguments.image[0]}x{arguments.image[1]}, a training step")
    for name in ("", "images", "tokens", "tower", "decoder", "seconds", "FLOP/s"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for mode, taken in zip(modes, seconds, strict=True):
        cost, median = mode.cost, statistics.median(taken)
        work = 3 * (cost.vision_flops + cost.decoder_flops)
        cells = (short(cost.vision_flops), short(cost.decoder_flops), f"{median:.3f}", short(round(work / median)))
        table.add_row(cost.mode, str(cost.images), str(cost.tokens), *cells)
    Console(highlight=False).print(table)
    print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {platform.processor() or platform.machine()}, "
        f"torch {torch.__version__}; tower and decoder: FLOPs of the forward pass of one picture; FLOP/s: of forward "
        "and backward (three times as many), the text's tokens left out"
    )


if __name__ == "__main__":
    main()
