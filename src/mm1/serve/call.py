"""A request under way: until when it may take, and whether its client is still there.

The guard (`mm1.serve.guard`) sees the connection, the engine (`mm1.serve.engine`) writes the answer, and between the
two lies the library's server, which passes on the body alone. So a call travels in a context variable.
"""

from __future__ import annotations

import threading
import time
from contextvars import ContextVar
from dataclasses import dataclass, field


@dataclass(eq=False)
class Call:
    """A request under way.

    Attributes:
        seconds: How long its answer may take.
        started: When it came, in seconds of `time.monotonic`.
        given_up: Set when nobody waits for the answer any more; generation then ends.
        failed: Whether its stream ended with a problem, since its status was sent before.
    """

    seconds: float = 3600.0
    started: float = field(default_factory=time.monotonic)
    given_up: threading.Event = field(default_factory=threading.Event)
    failed: bool = False

    @property
    def seconds_left(self) -> float:
        """Seconds that are left of its time, at least 0."""
        return max(0.0, self.started + self.seconds - time.monotonic())


CALL: ContextVar[Call] = ContextVar("CALL")
