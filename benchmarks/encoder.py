"""Contrastive training of an image encoder: speed against open_clip, and what the local loss saves.

    pip install --no-deps --target FOLDER open_clip_torch==3.3.0 timm ftfy wcwidth torchvision==0.28.0
    python benchmarks/encoder.py throughput FOLDER   # images/s of a training step, against open_clip_torch
    python benchmarks/encoder.py memory              # of the loss at a large batch, local against full
    python benchmarks/encoder.py throughput FOLDER --tiny    # seconds: proves that it runs

PyPI's torchvision is a CUDA build, whose operators can't load beside a CPU torch; open_clip uses none of them, so they
are declared empty here. They have a folder of their own because transformers would import that torchvision too.
Both sides: same sizes, batch, random pictures and captions, AdamW, precision; forward, loss, backward and step.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import CLIPConfig, CLIPModel

from mm1.encoder import contrastive
from mm1.encoder.contrastive import ContrastiveEncoder, Temperature, softmax_loss
from mm1.recipe import ObjectiveRecipe
from mm1.train.parallel import World

ALONE = World(0, 1, torch.device("cpu"))
VOCABULARY, TOKENS, PATCH = 1024, 32, 8
OPERATORS = """nms qnms roi_align roi_pool ps_roi_align ps_roi_pool deform_conv2d _roi_align_backward _roi_pool_backward
_ps_roi_align_backward _ps_roi_pool_backward _deform_conv2d_backward"""


def ours(image_size: int, width: int, layers: int, attention: str) -> tuple[torch.nn.Module, Callable[..., Any]]:
    """Return our encoder and its loss as a function of pictures and captions."""
    common = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers, "hidden_act": "gelu"}
    common |= {"num_attention_heads": width // 32}
    text = {"vocab_size": VOCABULARY, "max_position_embeddings": TOKENS, **common}
    text |= {"eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0}
    vision = {"image_size": image_size, "patch_size": PATCH, **common}
    clip = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=width)).train()
    clip.set_attn_implementation({"vision_config": attention, "text_config": attention})
    model = ContrastiveEncoder(clip, ObjectiveRecipe(), ALONE)
    return model, lambda pixels, ids: model(pixels, ids)[0] / len(pixels)


def open_clips(image_size: int, width: int, layers: int) -> tuple[torch.nn.Module, Callable[..., Any]]:
    """Return open_clip's model of the same sizes and its loss."""
    import open_clip
    from open_clip.loss import ClipLoss

    vision = {"image_size": image_size, "layers": layers, "width": width, "head_width": 32, "patch_size": PATCH}
    text = {"context_length": TOKENS, "vocab_size": VOCABULARY, "width": width, "heads": width // 32, "layers": layers}
    model = open_clip.CLIP(width, vision, text).train()
    loss = ClipLoss()
    return model, lambda pixels, ids: loss(*model(pixels, ids))


def throughput(folder: str, tiny: bool) -> None:
    """Print images/s of both, in turns."""
    library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS.split():
        library.define(f"{name}(Tensor nothing) -> Tensor")
    sys.path.append(folder)
    image_size, width, layers, batch, rounds = (32, 64, 1, 8, 2) if tiny else (64, 128, 4, 128, 5)
    torch.manual_seed(0)
    pixels = torch.randn(batch, 3, image_size, image_size)
    ids = torch.randint(4, VOCABULARY - 1, (batch, TOKENS))
    ids[:, -1] = 3
    theirs_ids = ids.clone()
    theirs_ids[:, -1] = VOCABULARY - 1  # open_clip reads the highest id as the end
    for name, autocast in (("float32", None), ("bfloat16", torch.bfloat16)):
        contenders = {
            "mm1, eager": (*ours(image_size, width, layers, "eager"), ids),
            "mm1, sdpa": (*ours(image_size, width, layers, "sdpa"), ids),
            "open_clip": (*open_clips(image_size, width, layers), theirs_ids),
        }
        seconds: dict[str, list[float]] = {contender: [] for contender in contenders}
        optimizers = {n: torch.optim.AdamW(model.parameters(), lr=1e-4) for n, (model, _, _) in contenders.items()}
        for turn in range(rounds + 1):  # the first isn't counted
            for contender, (_, loss, tokens) in contenders.items():
                began = time.perf_counter()
                with torch.autocast("cpu", autocast or torch.bfloat16, enabled=autocast is not None):
                    value = loss(pixels, tokens)
                value.backward()
                optimizers[contender].step()
                optimizers[contender].zero_grad()
                if turn:
                    seconds[contender].append(time.perf_counter() - began)
        base = statistics.median(seconds["open_clip"])
        for contender, times in seconds.items():
            median = statistics.median(times)
            print(f"{name:9} {contender:11} {batch / median:7.1f} images/s   {base / median:.2f}x open_clip")


def memory(tiny: bool) -> None:
    """Print what a rank's loss takes at most, one process each: its own rows' logits, or everybody's."""
    count, ranks = (512, 4) if tiny else (8192, 8)
    for form in ("local", "full"):
        command = [sys.executable, __file__, "one-loss", "--form", form, "--count", str(count), "--ranks", str(ranks)]
        print(subprocess.run(command, check=True, capture_output=True, text=True).stdout, end="")


def one_loss(form: str, count: int, ranks: int) -> None:
    """Run the loss of one of several ranks, the others' features being there already, and print the peak."""
    torch.manual_seed(0)
    features = [torch.nn.functional.normalize(torch.randn(count, 512), dim=-1) for _ in range(2)]
    images, texts = (rows[: count // ranks].clone().requires_grad_() for rows in features)
    others = iter(features)
    contrastive.gathered = lambda rows, world: torch.cat([rows, next(others)[len(rows) :]])
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    total, _ = softmax_loss(
        images, texts, Temperature(14.3, None, 100), World(0, ranks, torch.device("cpu")), local=form == "local"
    )
    total.backward()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{form:5} batch {count:,} over {ranks} ranks: {(peak - before) / 1024:,.0f} MiB more than before the loss")


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory", "one-loss"])
    parser.add_argument("folder", nargs="?", default="", help="where open_clip was installed to")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--form", choices=["local", "full"], default="local")
    parser.add_argument("--count", type=int, default=8192)
    parser.add_argument("--ranks", type=int, default=8)
    arguments = parser.parse_args()
    if arguments.what == "throughput":
        throughput(arguments.folder, arguments.tiny)
    elif arguments.what == "one-loss":
        one_loss(arguments.form, arguments.count, arguments.ranks)
    else:
        memory(arguments.tiny)


if __name__ == "__main__":
    main()
