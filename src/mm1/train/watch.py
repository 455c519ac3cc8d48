"""A line between the ranks beside torch's: a rank that fails or stands still ends the job, whatever others wait for.

    rank that fails --its sentence--> first rank --the sentence--> all ranks, which end

In a collective a rank learns late that another has ended: over gloo if the lost one is its neighbour, over NCCL when
the timeout has passed. So a thread of every rank listens to a TCP connection to the first rank. The system closes the
connection of a process that is killed.
"""

from __future__ import annotations

import faulthandler
import json
import os
import secrets
import selectors
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.text import Text

from mm1.errors import UserError
from mm1.progress import console
from mm1.ranks import end_process

STEP_TIMEOUT = "MM1_STEP_TIMEOUT"
"""Environment variable: seconds without a completed step after which the ranks count as hung."""
DEFAULT_STEP_TIMEOUT = 600.0
_SECONDS_TO_JOIN = 60.0
_SECONDS_TO_LEAVE = 10.0
_SECONDS_TO_LEARN = 10.0
"""How long a rank that has lost another waits to be told why."""
_LONGEST_SENTENCE, _LONGEST_LINE = 8192, 65_536


def step_timeout() -> float:
    """Return the seconds without a completed step after which the ranks of a training count as hung.

    Raises:
        UserError: If the environment variable isn't a positive number.
    """
    given = os.environ.get(STEP_TIMEOUT, str(DEFAULT_STEP_TIMEOUT))
    with suppress(ValueError):
        if 0 < (seconds := float(given)) < float("inf"):
            return seconds
    raise UserError(f"{STEP_TIMEOUT}={given}: it must be a number of seconds above 0")


class Watch:
    """Ends this rank when another one has failed or all of them stand still.

    Args:
        rank: This rank.
        gather: Returns the values of all ranks, in order.
        limit: Seconds without a completed step after which the ranks count as hung, once the first step is done.
        grace: Seconds between the stacks of hung ranks and their end, in which NCCL's own watchdog can write its
            record.

    Attributes:
        at_end: What to do before this process ends because of another rank.
        step: The last completed step.
    """

    def __init__(self, rank: int, gather: Callable[[Any], list[Any]], limit: float, grace: float) -> None:
        self.rank, self.limit, self.grace = rank, limit, grace
        self.at_end: Callable[[], None] | None = None
        self.step, self._last = 0, 0.0  # the last is when the step ended; 0: the clock stands
        self._leaving, self._alone = False, threading.Event()
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._join(gather)
        os.register_at_fork(after_in_child=self._close)  # loader workers would keep a dead rank's connection open
        threading.Thread(target=self._listen, name="watch", daemon=True).start()

    def step_done(self, step: int) -> None:
        """Say that a step has been completed, and start the clock anew."""
        self.step, self._last = step, time.monotonic()

    def stop_clock(self) -> None:
        """Say that no step will end for some time, since scores or files are made."""
        self._last = 0.0

    @property
    def ticks(self) -> bool:
        """Whether the clock runs."""
        return self._last > 0

    def leave(self) -> None:
        """Say that this rank ends as it should, and wait until all have come so far.

        A rank that ends earlier closes connections, from which another one may still have to read the last collective.
        """
        with self._lock:
            self._leaving = True
        if self.rank == 0:
            self._alone.wait(_SECONDS_TO_LEAVE)
        self._tell({"leaves": True})
        if self.rank > 0:
            self._alone.wait(_SECONDS_TO_LEAVE)

    def fail(self, sentence: str) -> None:
        """Tell the others that this rank fails, and why. They end."""
        with self._lock:
            self._leaving = True
        self._tell({"failed": f"rank {self.rank}: {sentence}"[:_LONGEST_SENTENCE]})

    def wait_for_reason(self) -> None:
        """Wait to be told why another rank was lost; being told ends this process."""
        time.sleep(_SECONDS_TO_LEARN)

    def _join(self, gather: Callable[[Any], list[Any]]) -> None:
        # Ranks of one machine need no door to the network.
        local = os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]
        server = (_server("127.0.0.1") if local else _server()) if self.rank == 0 else None
        hosts = ["127.0.0.1"] if local else [os.environ["MASTER_ADDR"], socket.gethostname()]
        mine = (hosts, server.getsockname()[1], secrets.token_hex(16)) if server else None
        hosts, port, token = gather(mine)[0]
        missing = None
        if server is None:
            try:
                self._connections[0] = _connect(hosts, port, {"token": token, "rank": self.rank})
            except OSError as error:
                missing = f"rank {self.rank} can't connect to port {port} of {' or '.join(hosts)} ({error})"
        others = gather(missing)[1:]
        if server is not None:
            with server:
                self._connections = _accept(server, token, others.count(None))
        for sentence in filter(None, others):
            console.print(f"{sentence}: it learns of failures by timeouts only", style="yellow", soft_wrap=True)

    def _listen(self) -> None:
        """Read what the other ranks say, and look at the clock, until the process ends or leaves."""
        with selectors.DefaultSelector() as selector:
            for rank, connection in self._connections.items():
                selector.register(connection, selectors.EVENT_READ, rank)
            while selector.get_map():
                for key, _ in selector.select(timeout=min(1.0, self.limit / 4)):
                    if self._heard(key.data, _read_line(key.fileobj)):  # type: ignore[arg-type]  # ours are sockets
                        selector.unregister(key.fileobj)
                if self.rank == 0 and self._last and time.monotonic() - self._last > self.limit:
                    self._hung()
        self._alone.set()

    def _heard(self, rank: int, said: dict[str, Any] | None) -> bool:
        """Do what a rank's line asks for; None: its connection has been closed. Return whether it has left."""
        if said is None:
            lost = f"rank {rank} has ended without a word"
            self._end(f"{lost}: look in its output, and in its machine's log whether memory ran out")
        elif "failed" in said:
            self._end(said["failed"])
        elif "hung" in said:
            self._show_stacks(said["hung"])
        return "leaves" in said if said else True

    def _hung(self) -> None:
        if self._leaving:
            return
        sentence = (
            f"no step has ended for {self.limit:,.0f} s since step {self.step}: a rank stands still; the stacks of "
            "all ranks follow, of which most wait in a collective: look at one that doesn't, and at what it reads "
            f"(storage, network); {STEP_TIMEOUT} sets another limit"
        )
        last = self._last
        self._tell({"hung": sentence})
        self._show_stacks(sentence)
        time.sleep(self.grace)
        if self._last == last:
            self._end(sentence)
        else:
            console.print(f"a step has ended after all: the training goes on; {STEP_TIMEOUT} avoids this message")

    def _show_stacks(self, sentence: str) -> None:
        if self.rank == 0:
            console.print(Text("error:", "bold red"), sentence, soft_wrap=True)
        with tempfile.TemporaryFile("w+") as file:  # written at once, since ranks may share a terminal
            faulthandler.dump_traceback(file, all_threads=True)
            file.seek(0)
            stacks = "".join(f"  {line}" for line in file)
        sys.stderr.write(f"where rank {self.rank} stands:\n{stacks}")
        sys.stderr.flush()

    def _end(self, sentence: str) -> None:
        """End this process, since another rank has failed; the first rank passes the sentence on."""
        with self._lock:
            if self._leaving:
                return
            self._leaving = True
        console.quiet = False
        self._tell({"failed": sentence[:_LONGEST_SENTENCE]})  # before the wait below, so that all wait at once
        if self.rank > 0:
            sentence = f"rank {self.rank} stops, since another rank has ended: {sentence}"
        console.print(Text("error:", "bold red"), sentence, soft_wrap=True)
        if self.at_end is not None:
            with suppress(Exception):
                self.at_end()
        console.show_cursor()
        end_process(2)

    def _tell(self, line: dict[str, Any]) -> None:
        content = json.dumps(line).encode() + b"\n"
        for connection in self._connections.values():
            with suppress(OSError):
                connection.sendall(content)

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _server(address: str = "") -> socket.socket:
    """Return a listening socket: of one address, or of all that the machine has."""
    dual = not address and socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    return socket.create_server((address, 0), family=family, backlog=4096, dualstack_ipv6=dual)


def _connect(hosts: list[str], port: int, hello: dict[str, Any]) -> socket.socket:
    """Connect to the first of several names of a machine that answers.

    Raises:
        OSError: If none does.
    """
    errors: list[OSError] = []
    for host in hosts:
        try:
            connection = socket.create_connection((host, port), timeout=_SECONDS_TO_JOIN)
        except OSError as error:
            errors.append(error)
            continue
        _keep_alive(connection)
        connection.sendall(json.dumps(hello).encode() + b"\n")
        return connection
    raise errors[-1]


def _accept(server: socket.socket, token: str, count: int) -> dict[int, socket.socket]:
    """Accept the connections of so many ranks; a stranger, who doesn't know the token, is sent away."""
    server.settimeout(_SECONDS_TO_JOIN)
    connections: dict[int, socket.socket] = {}
    while len(connections) < count:
        connection, _ = server.accept()
        connection.settimeout(_SECONDS_TO_JOIN)
        hello = _read_line(connection)
        if hello is not None and hello.get("token") == token:
            _keep_alive(connection)
            connections[hello["rank"]] = connection
        else:
            connection.close()
    return connections


def _keep_alive(connection: socket.socket) -> None:
    """Have the system notice within a minute that the machine at the other end is gone."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (("TCP_KEEPIDLE", 20), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, name):
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _read_line(connection: socket.socket) -> dict[str, Any] | None:
    """Return the JSON of the next line; None if there is none, since the other end has closed or is a stranger."""
    line = b""
    with suppress(OSError, ValueError):
        while len(line) < _LONGEST_LINE and (byte := connection.recv(1)):
            if byte == b"\n":
                said = json.loads(line)
                return said if isinstance(said, dict) else None
            line += byte
    return None
