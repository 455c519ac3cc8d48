"""Pictures at addresses: fetched from hosts that are allowed, and from nowhere else.

Whoever may name an address makes the server ask it (server-side request forgery). So an address is read once, what was
checked is what is connected to, and nothing leads on: no redirect, no proxy, no second look-up of a name.
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
from collections.abc import Sequence
from urllib.parse import urlsplit

from mm1.errors import UserError
from mm1.serve.problems import Problem

_PORTS = {"http": 80, "https": 443}
_PLAIN = re.compile(r"[!#$%&'()*+,\-./0-9:;=?@A-Z\[\]_a-z~]+")  # RFC 3986; no backslash, which readers read differently
_PIECE = 1 << 16


def allowed_host(text: str) -> str:
    """Return a value of `--allow-host` as addresses are compared with it.

    Raises:
        UserError: If it is no host.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        plain = parts.netloc == text and "@" not in text and _PLAIN.fullmatch(text) is not None
    except ValueError:
        plain, host, port = False, None, None
    if not plain or not host or "*" in host:
        raise UserError(f"--allow-host {text}: that is no host: write a name as in images.example.org, or HOST:PORT")
    return host if port is None else f"{host}:{port}"


def fetch(url: str, hosts: Sequence[str], most_bytes: int, seconds: float, param: str) -> bytes:
    """Return the bytes at an address.

    Args:
        url: The address.
        hosts: Of `allowed_host`. One without a port stands for the usual ports (80, 443).
        most_bytes: The most that are read.
        seconds: The most time that it may take.
        param: The part of the request that holds the address, for messages.

    Raises:
        Problem: If the host isn't allowed, or the picture can't be had.
    """
    scheme, host, port, target = _read(url, hosts, param)
    until = time.monotonic() + seconds
    try:
        connection = _Pinned(scheme, host, port, _address(host, port, param), seconds)
        try:
            connection.request("GET", target, headers={"Accept": "image/*", "User-Agent": "mm1"})
            response = connection.getresponse()
            if response.status != 200:
                hint = "redirects are not followed" if 300 <= response.status < 400 else "check the address"
                raise Problem(400, f"{param}: the host answered {response.status}: {hint}", param=param)
            data = bytearray()
            while piece := response.read1(_PIECE):
                data += piece
                if len(data) > most_bytes:
                    raise Problem(400, f"{param}: the picture has more than {most_bytes:,} bytes", param=param)
                if time.monotonic() > until:
                    raise TimeoutError("too slow")
            return bytes(data)
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise Problem(
            400, f"{param}: the picture can't be fetched ({reason}): send it as a data URL", param=param
        ) from None


def _read(url: str, hosts: Sequence[str], param: str) -> tuple[str, str, int, str]:
    """Return scheme, host, port and target of an address whose host is allowed."""
    remedy = "send the picture as a data URL (data:image/png;base64,...)"
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme.lower(), parts.hostname or "", parts.port
    except ValueError:
        scheme, host, port = "", "", None
    if scheme not in _PORTS or not host or not _PLAIN.fullmatch(url) or "@" in parts.netloc:
        raise Problem(400, f"{param}: neither a data URL nor a plain http or https address: {remedy}", param=param)
    usual = port is None or port == _PORTS[scheme]
    named = f"{host}:{port or _PORTS[scheme]}"
    if not (named in hosts or (usual and host in hosts)):
        raise Problem(
            400,
            f"{param}: pictures are not fetched from {host[:100]}: {remedy}, or start the server with --allow-host",
            code="host_not_allowed",
            param=param,
        )
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return scheme, host, port or _PORTS[scheme], target


def _address(host: str, port: int, param: str) -> str:
    """Return the one address that is connected to: public, unless the operator allowed that address itself."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = [str(entry[4][0]) for entry in found]
    if not _is_address(host):
        for address in addresses:
            if not _is_public(address):
                raise Problem(
                    400,
                    f"{param}: {host[:100]} is at an address that is not public: allow the address itself",
                    code="host_not_allowed",
                    param=param,
                )
    return addresses[0]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_public(text: str) -> bool:
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


class _Pinned(http.client.HTTPConnection):
    """A connection to an address that was checked; the host's name is for the certificate and the header alone."""

    def __init__(self, scheme: str, host: str, port: int, address: str, seconds: float) -> None:
        super().__init__(host, port, timeout=max(0.1, seconds))
        self._address = address
        self._end: threading.Timer | None = None
        self._tls = ssl.create_default_context() if scheme == "https" else None

    def connect(self) -> None:
        """Connect to the address, with TLS if the scheme says so, for so many seconds in all."""
        self.sock = opened = socket.create_connection((self._address, self.port), self.timeout)
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


def _shut(opened: socket.socket) -> None:
    with contextlib.suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)
