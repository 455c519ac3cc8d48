"""Files of the open web, at addresses that data sets name: fetched as a guest does, or not, with the reason.

Addresses are checked as `mm1.fetch.addresses` says, and so is every address that one redirects to. Whoever asks by the
header `X-Robots-Tag` not to be used for AI or not to be indexed is left alone, as img2dataset does by default.
"""

from __future__ import annotations

import http.client
import socket
import ssl
import time
from collections.abc import Sequence
from email.message import Message
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

from mm1.fetch.addresses import Address, NotPublicError, Pinned, TooLargeError, look_up, read_address, read_body
from mm1.version import __version__

SECONDS = 10.0
"""The most that an address may take with its redirects: img2dataset's default."""
MOST_BYTES = 16 * 2**20
"""The most that is fetched of an address."""

_ROBOT = "mm1"
_USER_AGENT = f"Mozilla/5.0 (compatible; {_ROBOT}/{__version__})"
_OPT_OUTS = frozenset({"noai", "noimageai", "noindex", "noimageindex", "none"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5
_PAUSE = 1.0  # before the one retry


class NotFetchedError(Exception):
    """What is at an address was not fetched.

    Attributes:
        reason: Why; addresses are counted by it, so it names none.
        is_of_network: Whether another time may do better.
    """

    def __init__(self, reason: str, is_of_network: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.is_of_network = is_of_network


class Web:
    """Fetches from the open web; used by several threads at once.

    Args:
        own_hosts: `HOST:PORT` of servers that may be asked although they are not on the open net.
        seconds: The most that an address may take.
        most_bytes: The most that is read.
    """

    def __init__(self, own_hosts: Sequence[str] = (), seconds: float = SECONDS, most_bytes: int = MOST_BYTES) -> None:
        self._own_hosts = frozenset(own_hosts)
        self._seconds = seconds
        self._most_bytes = most_bytes
        self._ips: dict[tuple[str, int], str | NotFetchedError] = {}  # resolvers are what breaks first under load

    def get(self, url: str) -> bytes:
        """Return the bytes at an address; a connection that fails is tried once more.

        Raises:
            NotFetchedError: If they can't or mustn't be had.
        """
        until = time.monotonic() + self._seconds
        for attempt in range(2):
            try:
                return self._follow(url, until)
            except TooLargeError:
                raise NotFetchedError(f"it is larger than {self._most_bytes >> 20} MiB") from None
            except ssl.SSLCertVerificationError:
                raise NotFetchedError("its host has no valid certificate") from None
            except (OSError, http.client.HTTPException, ValueError) as error:
                is_slow = isinstance(error, TimeoutError) or time.monotonic() + _PAUSE >= until
                if is_slow:
                    raise NotFetchedError(f"its host was too slow ({self._seconds:g} s)", True) from None
                if attempt:
                    raise NotFetchedError("the connection failed", True) from None
            time.sleep(_PAUSE)
        raise AssertionError

    def _follow(self, url: str, until: float) -> bytes:
        for _ in range(_MOST_REDIRECTS + 1):
            address = read_address(_written_plainly(url))
            if address is None:
                raise NotFetchedError("it has no plain http or https address")
            connection = Pinned(address, self._ip(address), until - time.monotonic())
            try:
                response = connection.ask(address, {"Accept": "image/*", "User-Agent": _USER_AGENT})
                if _opts_out(response.headers):
                    raise NotFetchedError("its owner asks not to use it (X-Robots-Tag)")
                if response.status == 200:
                    return read_body(response, self._most_bytes, until)
                target = response.headers.get("Location")
                if response.status not in _REDIRECTS or not target:
                    raise NotFetchedError(f"its host answered {response.status}", response.status in (429, 503))
                # Headers are read as Latin-1, and some servers write UTF-8.
                url = urljoin(url, target.encode("latin-1", "replace").decode("utf-8", "replace"))
            finally:
                connection.close()
        raise NotFetchedError(f"more than {_MOST_REDIRECTS} redirects")

    def _ip(self, address: Address) -> str:
        key = (address.host, address.port)
        if key not in self._ips:
            try:
                self._ips[key] = look_up(*key, public=address.named not in self._own_hosts)
            except NotPublicError:
                self._ips[key] = NotFetchedError("its host is not on the open net")
            except UnicodeError:
                self._ips[key] = NotFetchedError("it has no plain http or https address")
            except socket.gaierror as error:
                if error.errno == socket.EAI_AGAIN:
                    raise
                self._ips[key] = NotFetchedError("its host is unknown", True)
        found = self._ips[key]
        if isinstance(found, NotFetchedError):
            raise NotFetchedError(found.reason, found.is_of_network)
        return found


def _written_plainly(url: str) -> str:
    """Return an address with what others than ASCII write escaped, as browsers do."""
    url = f"https:{url}" if url.startswith("//") else url.strip()
    try:
        parts = urlsplit(url)
        host = parts.netloc if parts.netloc.isascii() else parts.netloc.encode("idna").decode("ascii")
    except ValueError:
        return url
    safe = "%/:=&?~#+!$,;'@()*[]"
    return urlunsplit((parts.scheme, host, quote(parts.path, safe=safe), quote(parts.query, safe=safe), ""))


def _opts_out(headers: Message) -> bool:
    """Whether `X-Robots-Tag` forbids: `noai, noindex`, for all or behind the name of one robot as in `mm1: noai`."""
    for value in headers.get_all("X-Robots-Tag", []):
        name, colon, rest = value.partition(":")
        if colon and name.strip().lower() != _ROBOT and "," not in name:
            continue
        rules = rest if colon and name.strip().lower() == _ROBOT else value
        if not _OPT_OUTS.isdisjoint(rule.strip().lower() for rule in rules.split(",")):
            return True
    return False
