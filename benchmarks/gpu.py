"""What only a GPU can show, one part after the other; each prints a line, and a part that fails does not stop the rest.

    benchmarks/gpu.sh [--tiny] [--json FILE]

start       a model filled on the device equals the one built on the CPU; seconds to start one of 1.2B
varlen      attention by borders against sdpa with a mask, on packed rows in bfloat16: logits, gradients, time
bfloat16    losses of a training in bfloat16 against float32
compile     losses of a compiled training against one that isn't
mfu         utilisation of mm1-1b as its recipe is, with captions, pages and text that are made up
peak        memory of the same training against what `mm1 scale rehearse` says
exit        seconds until a run under torchrun whose step fails has ended, and its exit code
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import yaml
from rich.console import Console

from mm1.model import MM1ForConditionalGeneration, build_model
from mm1.model.borders import Borders
from mm1.model.sharded_start import Share, start_sharded
from mm1.recipe import load_recipe
from train import write_recipe

TOKENS: dict[str, Any] = {
    "vocab_size": 2048,
    "image_token_id": 2047,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
WATCHDOG_SECONDS = 240


class Bench:
    """The parts.

    Args:
        folder: For corpora and runs.
        tiny: Whether sizes and steps are small.
    """

    def __init__(self, folder: Path, tiny: bool) -> None:
        self.folder, self.tiny = folder, tiny
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        settings = argparse.Namespace(model="demo", tiny=tiny, cache=folder / "weights", workers=0)
        self.small = write_recipe(folder, settings, "float32")
        self.large = self._large()

    def _large(self) -> Path:
        """Write mm1-1b on the made-up corpora, from scratch, on one GPU."""
        content = yaml.safe_load(load_recipe("mm1-tiny" if self.tiny else "mm1-1b").to_yaml())
        content["name"] = "large"
        content["tokenizer"] = {"vocab_size": 2048}
        content["data"] |= {"workers": 0 if self.tiny else 8, "images_per_sequence": 16}
        content["data"]["sequence_length"] = 256 if self.tiny else 4096
        for kind, section in content["data"]["mixture"].items():
            section["sources"] = [{"corpus": f"{kind}/train"}]
        steps = 4 if self.tiny else 30
        content["train"] |= {"steps": steps, "warmup_steps": 1, "batch_size": 8, "micro_batch_size": 2}
        content["train"] |= {"log_every": 1, "checkpoint_every": 10**6, "trackers": []}
        content["evaluate"] = {"tasks": []}
        file = self.folder / "large.yaml"
        file.write_text(yaml.safe_dump(content))
        return file

    def train(self, recipe: Path, name: str, *settings: str) -> list[dict[str, Any]]:
        """Train in a new process and return the log."""
        run = self.folder / name
        changes = [part for setting in settings for part in ("--set", setting)]
        command = [sys.executable, "-m", "mm1", "pretrain", str(recipe), "--to", str(run), *changes]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False)
        if done.returncode:
            raise RuntimeError(done.stderr[-2000:])
        return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]

    def start(self) -> dict[str, Any]:
        """Fill a model on the device, and compare it with one that is built whole."""
        recipe = load_recipe("mm1-tiny").model
        whole = build_model(recipe, **TOKENS, seed=3).state_dict()
        start = start_sharded(recipe, **TOKENS, seed=3, share=Share(0, 1))
        start.fill(self.device)
        equal = all(torch.equal(t.cpu(), whole[name]) for name, t in start.model.state_dict().items())
        large = load_recipe("mm1-tiny" if self.tiny else "mm1-1b").model
        began = time.perf_counter()
        start_sharded(large, **TOKENS, share=Share(0, 1)).fill(self.device)
        return {"equal": equal, "seconds": time.perf_counter() - began}

    def varlen(self) -> dict[str, Any]:
        """Compare attention by borders with sdpa: two packed rows of a decoder with a layer or two of mm1-1b's."""
        sets = ["model.language_model.num_layers=2"]
        recipe = load_recipe("mm1-tiny" if self.tiny else "mm1-1b", sets).model
        model = build_model(recipe, **TOKENS, seed=3)
        torch.nn.Module.to(model, self.device)
        length = 64 if self.tiny else 4096
        lengths = [[length // 2, length // 4, length // 4], [length // 3, length // 3, length - 2 * (length // 3)]]
        position_ids = torch.stack([torch.cat([torch.arange(n) for n in row]) for row in lengths]).to(self.device)
        input_ids = torch.randint(3, 2000, position_ids.shape, generator=torch.Generator().manual_seed(0))
        arguments = {"input_ids": input_ids.to(self.device), "position_ids": position_ids, "use_cache": False}
        borders = Borders.of(position_ids).padded(64).arguments()
        found: dict[str, Any] = {}
        results = {}
        for name in ("sdpa", "varlen"):
            model.set_attn_implementation({"text_config": name})
            given = arguments | (borders if name == "varlen" else {})
            results[name] = self._forward_backward(model, given)
            found[f"{name} ms"] = 1000 * median(self._timed(model, given) for _ in range(3 if self.tiny else 10))
        for what, one, other in zip(("logits", "gradient"), results["varlen"], results["sdpa"], strict=True):
            found[what] = float((one - other).norm() / other.norm())
        found["faster by"] = found["sdpa ms"] / found["varlen ms"]
        return found

    def _forward_backward(
        self, model: MM1ForConditionalGeneration, arguments: dict[str, Any]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        model.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16):
            logits = model(**arguments).logits.float()
        logits.square().mean().backward()
        gradient = dict(model.named_parameters())["model.language_model.embed_tokens.weight"].grad
        assert gradient is not None
        return logits.detach(), gradient.clone()

    def _timed(self, model: MM1ForConditionalGeneration, arguments: dict[str, Any]) -> float:
        self._wait()
        began = time.perf_counter()
        self._forward_backward(model, arguments)
        self._wait()
        return time.perf_counter() - began

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def bfloat16(self) -> dict[str, Any]:
        """Compare the losses of two precisions."""
        logs = [self.train(self.small, f"small-{dtype}", f"train.dtype={dtype}") for dtype in ("float32", "bfloat16")]
        return _differences(*logs)

    def compile(self) -> dict[str, Any]:
        """Compare the losses with and without compilation, in float32."""
        names = ("eager", "compiled")
        sets = (["train.compile=false"], ["train.compile=true"])
        attention = "model.language_model.attention=sdpa"
        logs = [self.train(self.small, n, attention, *some) for n, some in zip(names, sets, strict=True)]
        return _differences(*logs) | {"first step, seconds": logs[1][0]["time"]}

    def mfu(self) -> dict[str, Any]:
        """Train mm1-1b as its recipe is."""
        log = self.train(self.large, "large")
        settled = log[len(log) // 2 :]
        return {
            "MFU": median(line["mfu"] for line in settled),
            "tokens/s": median(line["tokens_per_second"] for line in settled),
            "loss": [log[0]["loss"], log[-1]["loss"]],
        }

    def peak(self) -> dict[str, Any]:
        """Compare the memory of a step with the rehearsal's; on a CPU there is nothing to compare with."""
        command = [sys.executable, "-m", "mm1", "scale", "rehearse", str(self.large), "--gpus", "1", "--json"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False)
        said = json.loads(done.stdout)
        code = (
            "import sys, torch; from pathlib import Path; from mm1.recipe import load_recipe; "
            "from mm1.train.pretrain import pretrain; pretrain(load_recipe(sys.argv[1]), Path(sys.argv[2])); "
            "print('PEAK', torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0)"
        )
        command = [sys.executable, "-c", code, str(self.large), str(self.folder / "peak")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False)
        found = re.search(r"PEAK (\d+)", done.stdout)
        return {"measured GB": int(found.group(1)) / 1e9 if found else None, "rehearsed": said}

    def exit(self) -> dict[str, Any]:
        """Let a step fail under torchrun."""
        code = (
            "import sys; from mm1.train.loop import Trainer; from mm1.cli import main\n"
            "def fail(*_): raise RuntimeError('made to fail')\n"
            "Trainer.backward = fail; main()"
        )
        script = self.folder / "fails.py"
        script.write_text(code)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "1", str(script)]
        command += ["pretrain", str(self.small), "--to", str(self.folder / "fails")]
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, timeout=WATCHDOG_SECONDS, check=False)
        told = "made to fail" in done.stderr
        return {"seconds": time.perf_counter() - began, "exit code": done.returncode, "told": told}


def _differences(some: list[dict[str, Any]], others: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the largest and the mean relative difference of two logs' losses."""
    each = [abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(some, others, strict=True)]
    return {"largest": max(each), "mean": sum(each) / len(each), "last": [some[-1]["loss"], others[-1]["loss"]]}


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="Small sizes, on any machine.")
    parser.add_argument("--json", type=Path, help="File for the figures.")
    arguments = parser.parse_args()
    console = Console(soft_wrap=True)
    name = torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores"
    console.print(f"{name}, torch {torch.__version__}")
    figures: dict[str, Any] = {"device": name, "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), arguments.tiny)
        parts: list[Callable[[], dict[str, Any]]] = [
            bench.start,
            bench.varlen,
            bench.bfloat16,
            bench.compile,
            bench.mfu,
            bench.peak,
            bench.exit,
        ]
        for part in parts:
            began = time.perf_counter()
            try:
                figures[part.__name__] = part()
            except Exception as error:  # the other parts are worth their time on a lent GPU
                figures[part.__name__] = {"failed": "".join(traceback.format_exception_only(error)).strip()}
            console.print(f"{part.__name__} ({time.perf_counter() - began:.0f} s): {figures[part.__name__]}")
            if arguments.json:
                arguments.json.write_text(json.dumps(figures, indent=2, default=str))
    if any("failed" in found for found in figures.values() if isinstance(found, dict)):
        sys.exit(1)


if __name__ == "__main__":
    main()
