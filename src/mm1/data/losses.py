"""When a build has lost too much of what it read to be called done, and what would likely put it right."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

MAX_LOSSES = 0.5
"""Share of the records that a build may leave out without being asked to."""

_FOLDERS_LOOKED_IN = 5000
_LEVELS_LOOKED_IN = 3
_REASONS_NAMED = 3
_METADATA_FILES = {f"metadata.{end}" for end in ("csv", "jsonl", "parquet")}  # as `datasets` looks for them
_HALVES = ("sample without a caption", "sample without a picture")


@dataclass(frozen=True)
class Losses:
    """What a build may lose.

    Attributes:
        share: Of the records that were read, at most.
        options: Of the reader, by name: a remedy names only what there is.
    """

    share: float
    options: Mapping[str, Any]

    def problem(self, counts: Mapping[str, Any]) -> str | None:
        """Return what a split has lost too much of, and the likeliest remedy; None if it is well.

        Args:
            counts: As `mm1.data.shards.sum_units` gives them.
        """
        read, left_out = counts["read"], counts["read"] - counts["documents"]
        if left_out > self.share * read:
            return f"{left_out:,} of {read:,} records are left out ({_reasons(counts['skipped'])}){self.remedy(counts)}"
        if counts["pictures_left_out"] and not counts["images"]:
            pictures = f"none of the {counts['pictures_left_out']:,} pictures could be taken"
            return f"{pictures} ({_reasons(counts['lost'] or counts['skipped'])}){self.remedy(counts)}"
        return None

    def remedy(self, counts: Mapping[str, Any]) -> str:
        """Return what the user can do about the reason that cost most, after a colon; nothing if none is known."""
        totals: Counter[str] = Counter()
        for kind in ("skipped", "lost"):
            totals.update({reason: entry["count"] for reason, entry in counts[kind].items()})
        for reason, _ in totals.most_common(_REASONS_NAMED):
            examples = (counts["skipped"].get(reason) or counts["lost"][reason])["examples"]
            sentence = _remedy_of_captions(reason, counts) or self._remedy_of(reason, examples, counts["missing"])
            if sentence:
                return f": {sentence}"
        return ""

    def _remedy_of(self, reason: str, examples: Sequence[str], missing: Sequence[Sequence[str]]) -> str | None:
        details = [match[1] for example in examples if (match := re.search(r"\((.*)\)$", example))]
        if "web address" in reason:
            if "fetch" in self.options:
                return "let them be fetched with --set fetch=true"
            return "fetch the pictures first, with img2dataset for example"
        if "pictures" in self.options and "file is missing" in reason:
            return _where_they_are(missing)
        if "pictures" in self.options and "outside of the source folder" in reason:
            folders = [os.path.dirname(os.path.abspath(path)) for path in details if os.path.isabs(path)]
            return (
                f"name the folder that they are in: --set pictures={os.path.commonpath(folders)}" if folders else None
            )
        if reason.startswith("record without a text") and "column" in self.options and details:
            return f"name the field of the text with --set column=NAME ({details[0]})"
        return None


def _remedy_of_captions(reason: str, counts: Mapping[str, Any]) -> str | None:
    """Return where the captions of pictures are that have none beside them."""
    if reason == "picture without a caption file":
        others = (example for entry in counts["unread"].values() for example in entry["examples"])
        if any(os.path.basename(name) in _METADATA_FILES for name in others):
            return "the captions are in a metadata file, which the format hub reads (--from hub)"
    if reason in _HALVES and all(half in counts["skipped"] for half in _HALVES):
        return "the members of a sample must follow one another: pack them by name (tar --sort=name)"
    return None


def _reasons(reasons: Mapping[str, Any]) -> str:
    ordered = sorted(reasons.items(), key=lambda item: -item[1]["count"])
    named = [f"{entry['count']:,}x {reason}" for reason, entry in ordered[:_REASONS_NAMED]]
    return "; ".join([*named, *(["..."] if len(ordered) > _REASONS_NAMED else [])])


def _where_they_are(missing: Sequence[Sequence[str]]) -> str:
    """Return where pictures are that records name by paths which lead to no file."""
    for folder, path in missing:
        for below in _folders_below(folder):
            if os.path.isfile(os.path.join(below, path)):
                name = os.path.relpath(below, folder)
                if os.path.isdir(name) and not os.path.samefile(name, below):  # a path from here comes first
                    name = below
                return f"a folder {name}/ is there: --set pictures={name}"
    for folder, path in missing:
        for below in _folders_below(folder):
            if os.path.isfile(os.path.join(below, os.path.basename(path))):
                return f"the records say {path}, but that file lies in {below}: put right one of the two"
    told_from = f" (they are told from {missing[0][0]})" if missing else ""
    return f"name the folder of the pictures with --set pictures=FOLDER{told_from}"


def _folders_below(top: str) -> Iterator[str]:
    """Yield folders below one, the nearest first; not all if there are very many."""
    level = [top]
    looked_in = 0
    for _ in range(_LEVELS_LOOKED_IN):
        below: list[str] = []
        for folder in level:
            try:
                with os.scandir(folder) as entries:
                    below += sorted(entry.path for entry in entries if entry.is_dir())
            except OSError:
                continue
            looked_in += 1
            if looked_in > _FOLDERS_LOOKED_IN:
                return
        yield from below
        level = below
