"""Is the memory that a budget counts what a training step takes?

    python benchmarks/memory.py            # four settings, each in two processes of its own: 4 minutes
    python benchmarks/memory.py --tiny     # the same in seconds, to see that it runs; the figures mean nothing

A step is two micro-batches, forward and backward, and AdamW's update, made twice, in float32 on the CPU. What is
measured is the peak of the process's resident memory beyond what it had before the model was built; what is
counted is weights, gradients and optimizer (16 bytes a parameter) and the activations of one micro-batch
(`mm1.scaling.memory`).

Every setting is measured twice: as it is, and with glibc told to give each tensor pages of its own
(`MALLOC_MMAP_THRESHOLD_`). As it is, the heap keeps holes between tensors that come and go; they are no part of what
the step holds, and a GPU's allocator has holes of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
from typing import Any

import torch
import torch.nn.functional as F

from mm1.model import MM1ForConditionalGeneration
from mm1.model.shape import recipe_config
from mm1.recipe import ModelRecipe, TrainRecipe
from mm1.scaling.memory import activation_bytes
from mm1.train.optimizer import build_optimizer

VOCABULARY = 8192
SETTINGS: dict[str, dict[str, Any]] = {
    "dense": {},
    "dense, eager attention": {"attention": "eager"},
    "dense, recomputed": {"recompute": True},
    "sparse": {"num_experts": 8},
}


def model_recipe(tiny: bool, num_experts: int = 0) -> ModelRecipe:
    """Return a model of 36 M parameters (sparse: 100 M)."""
    size = 64 if tiny else 256
    return ModelRecipe.model_validate(
        {
            "vision": {
                "image_size": 112,
                "patch_size": 14,
                "hidden_size": size,
                "num_layers": 6,
                "num_heads": size // 64,
            },
            "connector": {"kind": "c_abstractor", "num_tokens": 16, "hidden_size": size},
            "language_model": {
                "hidden_size": 2 * size,
                "num_layers": 6,
                "num_heads": size // 32,
                "num_experts": num_experts,
                "tie_embeddings": False,
            },
        }
    )


def measure(name: str, tiny: bool) -> dict[str, float]:
    """Train two steps in this process; return measured and counted bytes."""
    setting = dict(SETTINGS[name])
    recompute, attention = setting.pop("recompute", False), setting.pop("attention", "sdpa")
    config = recipe_config(model_recipe(tiny, **setting), VOCABULARY)
    rows, length, images = (1, 256, 4) if tiny else (2, 1024, 32)
    target = rows * length - images * config.image_seq_length
    warm_up()
    before = peak()
    model = MM1ForConditionalGeneration(config).train()
    model.set_attn_implementation(attention)
    if recompute:
        model.gradient_checkpointing_enable()
    optimizer = build_optimizer(model, TrainRecipe(), 1e-4)
    batch = {
        "input_ids": torch.zeros(rows, length, dtype=torch.long),
        "target_positions": torch.arange(target),
        "pixel_values": torch.randn(images, 3, 112, 112),
        "image_positions": torch.arange(images * config.image_seq_length),
    }
    for _ in range(2):
        for _ in range(2):
            logits = model(**batch, use_cache=False).logits
            F.cross_entropy(logits, torch.zeros(target, dtype=torch.long)).backward()
            del logits
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    measured = peak() - before
    parameters = sum(p.numel() for p in model.parameters())
    activations = activation_bytes(
        MM1ForConditionalGeneration(config).train(),
        rows=rows,
        length=length,
        images=images,
        target=target,
        attention=attention,
        recompute=recompute,
    )
    counted = 16 * parameters + activations
    return {
        "parameters": parameters,
        "activations counted, MB": activations / 1e6,
        "counted, MB": counted / 1e6,
        "measured, MB": measured / 1e6,
        "counted over measured": counted / measured,
    }


def warm_up() -> None:
    """Have the libraries load and reserve what they need once."""
    weight = torch.randn(64, 64, requires_grad=True)
    F.cross_entropy(torch.randn(8, 64) @ weight, torch.zeros(8, dtype=torch.long)).backward()


def peak() -> int:
    """Return the most bytes that this process has held."""
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def main() -> None:
    """Measure every setting in a process of its own and print the figures with the machine they came from."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(SETTINGS), help="this setting, in this process")
    parser.add_argument("--tiny", action="store_true", help="in seconds; the figures mean nothing")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.tiny)))
        return
    results: dict[str, Any] = {
        "machine": {"processor": platform.processor() or platform.machine(), "torch": torch.__version__}
    }
    for name in SETTINGS:
        command = [sys.executable, __file__, "--only", name, *(["--tiny"] if arguments.tiny else [])]
        results[name] = {}
        for way, variables in (("a heap with holes", {}), ("pages of its own", {"MALLOC_MMAP_THRESHOLD_": "65536"})):
            environment = os.environ | variables
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            results[name][way] = json.loads(done.stdout)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
