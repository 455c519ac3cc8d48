"""Pictures at addresses: fetched from hosts that are allowed, and from nowhere else.

What `mm1.fetch.addresses` says of strangers' addresses holds; besides, no redirect is followed.
"""

from __future__ import annotations

import http.client
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from mm1.errors import UserError, in_one_line
from mm1.fetch.addresses import (
    PLAIN,
    PORTS,
    Address,
    NotPublicError,
    Pinned,
    TooLargeError,
    is_number,
    look_up,
    read_address,
    read_body,
)
from mm1.serve.problems import Problem


def allowed_host(text: str) -> str:
    """Return a value of `--allow-host` as addresses are compared with it.

    Raises:
        UserError: If it is no host.
    """
    try:
        parts = urlsplit(f"//{text}")
        host, port = parts.hostname, parts.port
        plain = parts.netloc == text and "@" not in text and PLAIN.fullmatch(text) is not None
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
    address = _read(url, hosts, param)
    until = time.monotonic() + seconds
    try:
        # The operator may allow an address of the own network by its number; names never lead there.
        ip = look_up(address.host, address.port, public=not is_number(address.host))
        connection = Pinned(address, ip, seconds)
        try:
            response = connection.ask(address, {"Accept": "image/*", "User-Agent": "mm1"})
            if response.status != 200:
                hint = "redirects are not followed" if 300 <= response.status < 400 else "check the address"
                raise Problem(400, f"{param}: the host answered {response.status}: {hint}", param=param)
            return read_body(response, most_bytes, until)
        finally:
            connection.close()
    except NotPublicError as error:
        raise Problem(
            400, f"{param}: {error}: allow the address itself", code="host_not_allowed", param=param
        ) from None
    except TooLargeError as error:
        raise Problem(400, f"{param}: the picture has {error}", param=param) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = in_one_line(error)
        raise Problem(
            400, f"{param}: the picture can't be fetched ({reason}): send it as a data URL", param=param
        ) from None


def _read(url: str, hosts: Sequence[str], param: str) -> Address:
    """Return an address whose host is allowed."""
    remedy = "send the picture as a data URL (data:image/png;base64,...)"
    address = read_address(url)
    if address is None:
        raise Problem(400, f"{param}: neither a data URL nor a plain http or https address: {remedy}", param=param)
    usual = address.port == PORTS[address.scheme]
    if not (address.named in hosts or (usual and address.host in hosts)):
        raise Problem(
            400,
            f"{param}: pictures are not fetched from {address.host[:100]}: {remedy}, or start the server with "
            "--allow-host",
            code="host_not_allowed",
            param=param,
        )
    return address
