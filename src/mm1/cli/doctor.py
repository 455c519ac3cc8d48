"""`mm1 doctor`: what this machine has."""

from __future__ import annotations

from mm1.cli.console import output


def doctor() -> None:
    """Say what this machine has for mm1: device, precision, memory, extras, folders; and what will be slow."""
    from mm1.doctor.checkup import checkup

    output().print(checkup())
