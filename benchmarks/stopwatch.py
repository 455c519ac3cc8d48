"""Run `mm1` with a stopwatch on the steps of its training: a process for each turn of `benchmarks/step.py`.

    python benchmarks/stopwatch.py RESULT.json pretrain RECIPE ...

It works with every version whose loop has `Trainer._step`, so an older one can be measured beside this one.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def main() -> None:
    """Train, and write what every step took."""
    result, *arguments = sys.argv[1:]
    import mm1.cli

    steps: list[dict[str, float]] = []
    command = mm1.cli.app

    def patched_command(**options: Any) -> None:
        """Patch the loop only now: the command line sets what must be set before torch is loaded."""
        from mm1.train.loop import Trainer

        make_step = Trainer._step

        def timed(trainer: Any, number: int, batches: Any, window: Any) -> Any:
            waited, tokens, wall, processor = window.waited, window.tokens, time.perf_counter(), time.process_time()
            outcome = make_step(trainer, number, batches, window)
            steps.append(
                {
                    "wall": time.perf_counter() - wall,
                    "processor": time.process_time() - processor,
                    "tokens": window.tokens - tokens,
                    "waited": window.waited - waited,
                    "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
                }
            )
            return outcome

        Trainer._step = timed  # type: ignore[method-assign, assignment]  # in this process alone
        command(**options)

    mm1.cli.app = patched_command  # type: ignore[assignment]  # in this process alone
    sys.argv = ["mm1", *arguments]
    try:
        mm1.cli.main()
    finally:
        Path(result).write_text(json.dumps(steps))


if __name__ == "__main__":
    main()
