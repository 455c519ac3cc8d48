"""One rank of a scoring: `python -m tests.evaluate.sharded_ranks RANKS_PER_MODEL JOBS` under torchrun.

JOBS is a JSON file: for each model its folder, its tasks, its shots and the folder of its results. Beside that file
each rank writes which of the model's tensors it holds a part of.

Every rank but the first of its group gets the opposite of the true logits. So a rank that decides for itself which
token comes next, or writes a result, is seen in the results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch.distributed.tensor import DTensor

from mm1.evaluate import run, scoring
from mm1.evaluate.distributed import own_group
from mm1.evaluate.settings import EvaluationSettings
from mm1.ranks import own_rank

torch.set_num_threads(1)
scoring.PART = 6
jobs = Path(sys.argv[2])
load = run.load_generator
parts: dict[str, Any] = {}


def opposite(module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
    return -logits


def load_and_look(path: Path, **options: Any) -> Any:
    generator = load(path, **options)
    if not own_group().first:
        generator.model.lm_head.register_forward_hook(opposite)
    parts[str(path)] = {
        name: list(tensor.to_local().shape)
        for name, tensor in generator.model.named_parameters()
        if isinstance(tensor, DTensor)
    }
    return generator


run.load_generator = load_and_look
for job in json.loads(jobs.read_text()):
    settings = EvaluationSettings(
        tasks=job["tasks"], shots=job["shots"], device="cpu", ranks_per_model=int(sys.argv[1])
    )
    run.evaluate_run(job["model"], settings=settings, to=Path(job["to"]))
jobs.with_suffix(f".{own_rank()}.json").write_text(json.dumps(parts))
