"""How far do answers depend on the batch, in float32 and in bfloat16?

    python benchmarks/precision.py runs/demo            # 256 questions of easy-vqa, six minutes of one core

A run's model answers the same few-shot prompts alone, in batches of 7 and of 64, with and without shared shots. Counted
are answers that differ from those of the prompt alone in the same precision, and from those in float32.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from mm1.document import Document
from mm1.evaluate.models.loading import load_generator
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.prompts import build_prompt
from mm1.evaluate.shots import ShotPool
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import Task, load_task


def prompts(task: Task, shots: int, limit: int) -> list[Document]:
    """Return the prompts of the first items of a task, as scoring makes them."""
    items = open_items(task.data)
    pool = ShotPool(task, open_items(task.pool))
    chosen = [items[row] for row in range(min(limit, len(items)))]
    return [build_prompt(task, item, pool.draw(item, shots, seed=0)) for item in chosen]


def answers(loaded: MM1Generator, task: Task, asked: Sequence[Document], batch_size: int, *, share: bool) -> list[str]:
    """Return the answers of a fresh generator."""
    generator = MM1Generator(
        loaded.model, loaded.processor, batch_size=batch_size, device=loaded.device, share_prefixes=share
    )
    return [str(a) for a in generator.generate(asked, max_new_tokens=task.max_new_tokens, stop=task.stop)]


def main() -> None:
    """Count and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--task", default="easy-vqa")
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--limit", type=int, default=256)
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    task = load_task(options.task)
    asked = prompts(task, options.shots, options.limit)
    exact: list[str] = []
    rows = []
    for dtype in ("float32", "bfloat16"):
        loaded = load_generator(options.run, device=options.device, dtype=dtype)
        if not isinstance(loaded, MM1Generator):
            raise SystemExit("give a run of ours")
        alone = answers(loaded, task, asked, 1, share=False)
        exact = exact or alone
        for batch_size in (1, 7, 64):
            for share in (False, True):
                found = answers(loaded, task, asked, batch_size, share=share)
                rows.append(
                    {
                        "dtype": dtype,
                        "batch_size": batch_size,
                        "shots_shared": share,
                        "differ_from_alone": sum(a != b for a, b in zip(found, alone, strict=True)),
                        "differ_from_float32": sum(a != b for a, b in zip(found, exact, strict=True)),
                    }
                )
    print(json.dumps({"prompts": len(asked), "different_answers": len(set(exact)), "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
