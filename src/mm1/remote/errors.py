"""What goes wrong with addresses, as sentences."""

from __future__ import annotations

from typing import NamedTuple

from mm1.errors import UserError, in_one_line


class RemoteError(UserError):
    """What lies at an address can't be read."""


class MissingError(RemoteError):
    """Nothing lies at an address."""


class MissingBucketError(MissingError):
    """There is no bucket of an address's name."""


class ChangedError(RemoteError):
    """Something else lies at an address than did."""


class Library(NamedTuple):
    """What reads the addresses of a protocol.

    Attributes:
        name: The package.
        extra: The extra of mm1 that installs it; empty: mm1 itself does.
        credentials: The places where it finds credentials.
        has_buckets: Whether addresses begin with a bucket.
    """

    name: str
    extra: str
    credentials: str
    has_buckets: bool = False


_AWS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, ~/.aws or the machine's role"
_S3 = Library("s3fs", "s3", _AWS, has_buckets=True)
_GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth application-default login` or the machine's role"
_GCS = Library("gcsfs", "gcs", _GOOGLE, has_buckets=True)
_HTTP = Library("aiohttp", "http", "~/.netrc (with FSSPEC_HTTPS)")
LIBRARIES = {
    **dict.fromkeys(("s3", "s3a"), _S3),
    **dict.fromkeys(("gs", "gcs"), _GCS),
    **dict.fromkeys(("http", "https"), _HTTP),
    "hf": Library("huggingface_hub", "", "HF_TOKEN or `hf auth login`"),
}
"""By protocol; what fsspec reads beyond these is read too, and less is said of it."""

_LASTING = {
    "ChangedError",
    "FileExpired",  # of s3fs
    "FileNotFoundError",
    "ImportError",
    "IsADirectoryError",
    "NotADirectoryError",
    "NotImplementedError",
    "PermissionError",
    "UserError",
    # Of botocore and google-auth, which may not be installed.
    "DefaultCredentialsError",
    "InvalidConfigError",
    "NoCredentialsError",
    "ParamValidationError",
    "PartialCredentialsError",
    "ProfileNotFound",
}
_OF_CREDENTIALS = {
    "DefaultCredentialsError",
    "NoCredentialsError",
    "PartialCredentialsError",
    "PermissionError",
    "ProfileNotFound",
}
_PASSING_STATUS = (408, 429)  # timeout, too many requests


def may_pass(error: Exception) -> bool:
    """Whether another try may do what one has failed at."""
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status in _PASSING_STATUS
    return not _is_one_of(error, _LASTING)


def told(error: Exception, address: str, tries: int) -> RemoteError:
    """Return the sentence for what a library has raised.

    Args:
        error: What was raised.
        address: What it was about.
        tries: How often it was tried.
    """
    if isinstance(error, RemoteError):
        return error
    library = LIBRARIES.get(protocol_of(address))
    reason = reason_of(error)
    if isinstance(error, FileNotFoundError):
        return MissingError(f"{address}: nothing is there: check the address")
    if _is_one_of(error, _OF_CREDENTIALS) or _status(error) in (401, 403):
        found = f"{library.name} takes them from {library.credentials}" if library else "its library finds them"
        return RemoteError(f"{address}: it may not be read ({reason}): check the credentials, which {found}")
    if not may_pass(error):
        return RemoteError(f"{address}: it can't be read ({reason}): check the address and the store")
    return RemoteError(
        f"{address}: it could not be read in {tries} tries ({reason}): check the network and the store, then run the "
        "same command again"
    )


def protocol_of(address: str) -> str:
    """Return what an address begins with: `s3`."""
    return address.partition("://")[0].lower()


def reason_of(error: Exception) -> str:
    """Return what an exception says, in a line."""
    if isinstance(error, TimeoutError) and not str(error):
        return "no answer in time"
    return in_one_line(error)


def _status(error: Exception) -> int | None:
    """Return the status of HTTP that an error of aiohttp or httpx has."""
    status = getattr(error, "status", None) or getattr(getattr(error, "response", None), "status_code", None)
    return status if isinstance(status, int) else None


def _is_one_of(error: Exception, names: set[str]) -> bool:
    return any(kind.__name__ in names for kind in type(error).__mro__)
