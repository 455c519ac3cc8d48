"""Web addresses that strangers wrote: read once, checked, and connected to where the check was.

Whoever may name an address makes this machine ask it (server-side request forgery). So a name is looked up once, an
address that is not on the open net is refused, and what was checked is what is connected to: no proxy, no second
look-up.
"""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

PORTS = {"http": 80, "https": 443}
"""Schemes that are asked, with their usual ports."""

PLAIN = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")
"""What an address is written with (RFC 3986); no backslash, which readers read differently."""

_PIECE = 1 << 16


class NotPublicError(OSError):
    """A name leads to an address that is not on the open net."""


class TooLargeError(OSError):
    """A body has more bytes than are wanted."""


@dataclass(frozen=True)
class Address:
    """A plain http or https address.

    Attributes:
        scheme: `http` or `https`.
        host: The name, or the number.
        port: The port.
        target: Path and query, as the request line has them.
    """

    scheme: str
    host: str
    port: int
    target: str

    @property
    def named(self) -> str:
        """`HOST:PORT`."""
        return f"{self.host}:{self.port}"


def read_address(url: str) -> Address | None:
    """Return an address; None if it is no plain one of a host (names of users in it are not plain)."""
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        return None
    if scheme not in PORTS or not host or not PLAIN.fullmatch(url) or "@" in parts.netloc:
        return None
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Address(scheme, host, port or PORTS[scheme], target)


def look_up(host: str, port: int, *, public: bool) -> str:
    """Return the one IP address that is connected to for a host.

    Args:
        host: The name, or the number.
        port: The port.
        public: Whether all its addresses must be on the open net.

    Raises:
        NotPublicError: If one of them is not.
        OSError: If the name is unknown.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if public and not all(map(is_public, addresses)):
        raise NotPublicError(f"{host[:100]} is at an address that is not public")
    return addresses[0]


def is_number(host: str) -> bool:
    """Whether a host is an IP address and no name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def is_public(text: str) -> bool:
    """Return whether an address is on the open net; one that holds an IPv4 address is what that is."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        nat64 = ipaddress.ip_network("64:ff9b::/96")
        if address in nat64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return inner.is_global and not inner.is_multicast
    return address.is_global and not address.is_multicast


class Pinned(http.client.HTTPConnection):
    """A connection to an IP address that was checked; the host's name is for the certificate and the header alone.

    Args:
        address: What is asked.
        ip: Where it is.
        seconds: The most that everything may take, from connecting to the last byte.
    """

    def __init__(self, address: Address, ip: str, seconds: float) -> None:
        super().__init__(address.host, address.port, timeout=max(0.1, seconds))
        self._ip = ip
        self._end: threading.Timer | None = None
        self._tls = _tls() if address.scheme == "https" else None

    def connect(self) -> None:
        """Connect to the address, with TLS if the scheme says so, for so many seconds in all."""
        self.sock = opened = socket.create_connection((self._ip, self.port), self.timeout)
        # A timeout of a socket is for each byte that comes; this one is for all of them.
        self._end = threading.Timer(self.timeout or 0, _shut, [opened])
        self._end.daemon = True
        self._end.start()
        if self._tls is not None:
            self.sock = self._tls.wrap_socket(opened, server_hostname=self.host)

    def close(self) -> None:
        """Close the connection."""
        if self._end is not None:
            self._end.cancel()
        super().close()

    def ask(self, address: Address, headers: Mapping[str, str]) -> http.client.HTTPResponse:
        """Send a GET request and return the response, its body unread."""
        self.request("GET", address.target, headers=dict(headers))
        return self.getresponse()


def read_body(response: http.client.HTTPResponse, most_bytes: int, until: float) -> bytes:
    """Return the body of a response.

    Args:
        response: Its body unread.
        most_bytes: The most that are read.
        until: When it must be there, in seconds of `time.monotonic`.

    Raises:
        TooLargeError: If it has more bytes.
        OSError: If it breaks off or is too slow.
    """
    stated, data = response.length, bytearray()
    if stated is not None and stated > most_bytes:
        raise TooLargeError(f"more than {most_bytes:,} bytes")
    while piece := response.read1(_PIECE):
        data += piece
        if len(data) > most_bytes:
            raise TooLargeError(f"more than {most_bytes:,} bytes")
        if time.monotonic() > until:
            raise TimeoutError("too slow")
    if stated is not None and len(data) < stated:
        raise TimeoutError("too slow") if time.monotonic() > until else ConnectionError("broken off")
    return bytes(data)


@cache
def _tls() -> ssl.SSLContext:
    return ssl.create_default_context()


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
