"""One rank of a scoring; its only argument is a JSON file.

The file has a list of command lines of `mm1`. When all but the last are done, each rank writes beside that file which
of the models' tensors it holds a part of. During the last one, rank 1 is killed.

Every rank but the first of its group gets the opposite of the true logits. So a rank that decides for itself which
token comes next, or writes a result, is seen in the results.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch.distributed.tensor import DTensor

from mm1 import cli
from mm1.evaluate import run, scoring
from mm1.evaluate.distributed import own_group
from mm1.ranks import own_rank


def main() -> None:
    """Run the command lines on this rank."""
    scoring.PART = 6
    jobs = Path(sys.argv[1])
    *commands, last = json.loads(jobs.read_text())
    load = run.load_generator
    parts: dict[str, Any] = {}

    def opposite(module: Any, args: Any, logits: torch.Tensor) -> torch.Tensor:
        if sys.argv[1:] == last and own_rank() == 1:
            os.kill(os.getpid(), signal.SIGKILL)
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

    mock.patch.object(run, "load_generator", load_and_look).start()
    for command in commands:
        sys.argv[1:] = command
        try:
            with mock.patch("mm1.cli.end_rank"):  # which would end this process, and it has more to do
                cli.main()
        except SystemExit as end:
            if end.code:
                raise
    jobs.with_suffix(f".{own_rank()}.json").write_text(json.dumps(parts))
    sys.argv[1:] = last
    cli.main()
