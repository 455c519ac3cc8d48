"""Where a folder is needed and no address (`s3://`) will do: what is written, and what commands read as a whole."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from mm1.errors import UserError
from mm1.places import is_address

_TAKE_THEM = ("push",)
"""Commands that write to addresses."""
_READ_FOLDERS = ("clean", "compare", "headline", "report", "score-encoder")
"""Commands whose arguments are folders and no names of models or corpora."""


def refuse_addresses(arguments: Sequence[str]) -> None:
    """Check that an address stands only where one can be used.

    Args:
        arguments: Of the command line, without the program.

    Raises:
        UserError: If an address stands in the place of a folder.
    """
    if set(_TAKE_THEM).isdisjoint(arguments[:1]):
        for option, value in pairwise([*arguments, ""]):
            target = option.removeprefix("--to=") if option.startswith("--to=") else value if option == "--to" else ""
            if is_address(target):
                raise UserError(
                    f"--to {target}: what a command writes goes to a folder of a disk: name one, and copy it when it "
                    f"is done (aws s3 cp --recursive FOLDER {target}, say; a model with mm1 push)"
                )
    if not set(_READ_FOLDERS).isdisjoint(arguments[:2]):
        for argument in filter(is_address, arguments):
            raise UserError(f"{argument}: this command takes a folder: copy it to one (aws s3 cp --recursive, say)")
