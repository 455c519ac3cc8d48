"""How much processor time does a command take that only prints?

    python benchmarks/startup.py                    # this checkout
    python benchmarks/startup.py src OTHER/src      # two checkouts, in turns

Each figure is the median of five new processes: user and system time in seconds. A first process of each, which reads
files and may compile them, does not count.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

COMMANDS = (["--help"], ["--version"], ["tasks"], ["study", "list"], ["evaluate", "--help"], ["pretrian", "demo"])
ROUNDS = 5


def processor_seconds(source: Path, command: list[str]) -> float:
    """Return user and system time of one process that runs a command of the package in a folder."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-m", "mm1", *command],
        env={**os.environ, "PYTHONPATH": str(source)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # a misspelt command fails
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    """Time all commands in all checkouts, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("sources", nargs="*", type=Path, help="the folders src of checkouts; default: this one's")
    sources = parser.parse_args().sources or [Path(__file__).resolve().parents[1] / "src"]
    table = Table("command", *(str(source) for source in sources), title="seconds of processor time")
    for command in COMMANDS:
        rounds = [[processor_seconds(source.resolve(), command) for source in sources] for _ in range(ROUNDS + 1)]
        medians = [statistics.median(seconds) for seconds in zip(*rounds[1:], strict=True)]
        table.add_row("mm1 " + " ".join(command), *(f"{median:.2f}" for median in medians))
    Console().print(table)


if __name__ == "__main__":
    main()
