"""The Hub, through its own library; what it refuses is one sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mm1.errors import UserError, in_one_line
from mm1.publish.contents import SETTINGS, WEIGHTS

_STALE = [*WEIGHTS, "*.safetensors.index.json"]
"""What an earlier push may have left that this one doesn't write over: other shards of the weights."""


def upload(folder: Path, repository: str, *, private: bool, revision: str | None, message: str) -> str:
    """Upload a folder as a model, and return its address.

    The repository is made if there is none; one that exists stays as visible as it is. An interrupted upload goes on
    where it was when it is called again.

    Args:
        folder: All of its files are uploaded.
        repository: `owner/name`.
        private: Whether a new repository is private.
        revision: Branch, made if there is none; None: the main one.
        message: Of the commit.

    Raises:
        UserError: If there is no token or no network, or the Hub refuses.
    """
    if get_token() is None:
        raise UserError(
            f"{repository}: pushing to the Hub needs a token: run `hf auth login`, or set HF_TOKEN, and try again"
        )
    with _sentences(repository):
        api = HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        if revision is not None:
            api.create_branch(repository, branch=revision, exist_ok=True)
        api.upload_folder(
            repo_id=repository,
            folder_path=folder,
            revision=revision,
            commit_message=message,
            delete_patterns=_STALE,
        )
    return str(address)


def download(repository: str, revision: str | None = None) -> Path:
    """Fetch a model's files into the Hub's cache, and return their folder. Pickle files stay where they are.

    Raises:
        UserError: If there is no such model, no access to it or no network.
    """
    with _sentences(repository, revision):
        patterns = [*SETTINGS, *WEIGHTS]
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))


@contextmanager
def _sentences(repository: str, revision: str | None = None) -> Iterator[None]:
    """Turn what the library raises into sentences."""
    name = f"{repository}@{revision}" if revision else repository
    try:
        yield
    except HFValidationError:
        raise UserError(f"{name}: not the id of a model on the Hub: write owner/name") from None
    except OfflineModeIsEnabled:
        raise UserError(f"{name}: HF_HUB_OFFLINE forbids to ask the Hub: unset it, or use a folder") from None
    except GatedRepoError:
        raise UserError(f"{name}: its author must grant access first: ask for it on the model's page") from None
    except RevisionNotFoundError:
        raise UserError(f"{name}: the model has no such revision: name a branch, a tag or a commit") from None
    except RepositoryNotFoundError:
        raise UserError(
            f"{name}: the Hub has no such model, or your token has no access to it: check the name, or `hf auth login`"
        ) from None
    except LocalEntryNotFoundError:
        raise UserError(f"{name}: the Hub is out of reach, and the model isn't here: check the network") from None
    except (HfHubHTTPError, EntryNotFoundError) as error:
        response = getattr(error, "response", None)
        status = getattr(response, "status_code", None)
        if status in (401, 403):
            raise UserError(
                f"{name}: the Hub refuses your token ({status}): it needs the right to write to {repository}"
            ) from None
        said = getattr(error, "server_message", None) or in_one_line(error)
        raise UserError(f"{name}: the Hub says: {said}{f' ({status})' if status else ''}") from None
    except ValueError as error:
        if "README.md" not in str(error):
            raise
        raise UserError(f"{name}: the Hub does not take the card ({in_one_line(error)}): correct README.md") from None
    except OSError as error:
        reason = in_one_line(error)
        raise UserError(f"{name}: the transfer failed ({reason}): try again, it goes on where it was") from None
    except Exception as error:
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore"):
            raise
        raise UserError(f"{name}: the Hub is out of reach ({in_one_line(error)}): check the network") from None
