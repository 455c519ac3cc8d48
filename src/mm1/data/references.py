"""What of a corpus by reference is a reference: pictures and texts whose source file gives back the same bytes.

Each is read back when it is written. What differs, or lies nowhere as it is, is stored and counted, so a corpus by
reference has the same documents as a copied one, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mm1.data.located import SHORTEST_TEXT, Located, LocatedText
from mm1.data.schema import place_of, told_path
from mm1.data.skips import Skips, merge_reasons
from mm1.data.sources import SourceError, State, read_bytes, read_text
from mm1.document import Part, Text
from mm1.places import is_address

_NOWHERE = "{} that lies in no source file as it is (packed, encoded, cut or put together)"
_OTHERWISE = "{} whose source file gives back something else"


class References:
    """Turns the parts of documents into places of source files, and counts both kinds.

    Args:
        corpus: The directory that the corpus will have.
    """

    def __init__(self, corpus: Path) -> None:
        self._corpus = corpus
        self._counts = {"pictures": 0, "texts": 0, "bytes": 0}
        self._files: dict[str, State] = {}
        self._stored = Skips()

    def place(self, part: Part, where: str) -> dict[str, Any] | None:
        """Return the Arrow struct of the place of a part; None, counted, if the part is to be stored.

        Args:
            part: A picture or a text. Texts below `SHORTEST_TEXT` characters are stored and not counted.
            where: The document's id.
        """
        is_text = isinstance(part, Text)
        value = part.text if isinstance(part, Text) else part.data
        if value is None or (is_text and len(value) < SHORTEST_TEXT):
            return None
        noun = "long text" if is_text else "picture"
        if not isinstance(value, Located | LocatedText):
            self._stored.add(_NOWHERE.format(noun), where)
            return None
        location = value.location
        try:
            state = self._state_of(location.file)
            found = read_text(location, state) if is_text else read_bytes(location, state)
        except (SourceError, OSError):
            if is_address(location.file):  # what a store doesn't give back now it would not give in training
                raise
            found = None
        if found != value:
            self._stored.add(_OTHERWISE.format(noun), where)
            return None
        self._files[location.file] = state
        self._counts["texts" if is_text else "pictures"] += 1
        self._counts["bytes"] += len(value.encode()) if isinstance(value, str) else len(value)
        return place_of(location, state, self._corpus)

    def _state_of(self, file: str) -> State:
        """Return the state of a file as it is now; that of an object, which takes a request, when it was first used."""
        return (self._files.get(file) if is_address(file) else None) or State.of(file)

    def counts(self) -> dict[str, Any]:
        """Return what `corpus.json` says: `located` (counts, files with size and time of change) and `stored`."""
        files = {told_path(file, self._corpus): list(state) for file, state in self._files.items()}
        return {"located": {**self._counts, "files": files}, "stored": self._stored.as_dict()}


def sum_references(infos: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the shards of a split have counted together; nothing if the split is none by reference."""
    those = [info for info in infos if "located" in info]
    if not those:
        return {}
    counts = {name: sum(info["located"][name] for info in those) for name in ("pictures", "texts", "bytes")}
    files = {file: state for info in those for file, state in info["located"]["files"].items()}
    return {"located": {**counts, "files": files}, "stored": merge_reasons(info["stored"] for info in those)}
