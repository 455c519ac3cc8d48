"""`mm1` on a rank that fails in a step, for torchrun: `python -m tests.train.failing RANK HOW STEP ARGUMENTS`."""

from __future__ import annotations

import os
import signal
import sys
import time
from typing import Any

from mm1 import cli
from mm1.errors import UserError
from mm1.model.dispatch import ExpertRanks
from mm1.ranks import own_rank
from mm1.train.loop import Trainer


def fail(how: str) -> None:
    """Fail as a user's mistake, an unexpected error, a killed or frozen process, or by standing still."""
    if how == "mistake":
        raise UserError("the sky has fallen: put it back")
    if how == "bug":
        raise ZeroDivisionError("the sky is zero")
    if how == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "sending":  # killed between the two exchanges of tokens with the experts' ranks
        setattr(ExpertRanks, "_exchange", lambda *_: fail("killed"))  # noqa: B010 - as below
        return
    if how == "frozen":
        os.kill(os.getpid(), signal.SIGSTOP)
    time.sleep(600)


def main() -> None:
    """Have one rank fail within a step, where the others wait for it in a collective."""
    rank, how, at = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    backward = Trainer.backward

    def failing(self: Trainer, batch: Any, number: int, count: float) -> Any:
        if own_rank() == rank and number == at:
            fail(how)
        return backward(self, batch, number, count)

    setattr(Trainer, "backward", failing)  # noqa: B010 - mypy refuses a method that is assigned to
    sys.argv = ["mm1", *sys.argv[4:]]
    cli.main()


if __name__ == "__main__":
    main()
