"""The benchmark of the model runs and compares like with like."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FILE = Path(__file__).parents[2] / "benchmarks" / "model.py"


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_model", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["benchmark_model"] = module
    spec.loader.exec_module(module)
    return module


def test_both_sides_learn_the_same_tokens_from_the_same_documents(benchmark):
    documents = benchmark.samples(20, 250, 512)
    packed, padded = benchmark.packed_batches(documents, 256, 2), benchmark.padded_batches(documents, 5)
    targets = torch.cat([b["target_ids"] for b in packed])
    labels = torch.cat([b["labels"][b["labels"] >= 0] for b in padded])
    assert torch.equal(targets.sort().values, labels.sort().values)
    pictures = [sum(len(b.get("pixel_values", [])) for b in side) for side in (packed, padded)]
    assert pictures[0] == pictures[1] == sum(len(d.images) for d in documents) > 0


def test_both_models_have_the_same_mean_loss(benchmark):
    ours = benchmark.build(64, 1, 512).eval()
    llava = benchmark.to_llava(ours)
    documents = benchmark.samples(6, 250, 512)
    (packed,), (padded,) = benchmark.packed_batches(documents, 2048, 1), benchmark.padded_batches(documents, 6)
    torch.testing.assert_close(ours(**packed).loss, llava(**padded).loss, atol=1e-4, rtol=0)
    by_hand = llava(**benchmark.packed_by_hand(packed), use_cache=False)
    torch.testing.assert_close(ours(**packed).loss, by_hand.loss, atol=1e-4, rtol=0)


def test_it_runs(benchmark):
    assert benchmark.throughput("tiny", torch.float32)["packed over LLaVA"] > 0


def test_the_one_of_experts_runs() -> None:
    command = [sys.executable, str(FILE.with_name("experts.py")), "block", "--tiny"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.search(r"sparse / dense: \d+\.\d\d", said)
