"""From patterns to source files: braces, globs, folders and links; whatever is not read there is named and counted.

Names that begin with a dot are hidden, as in a shell: they are found only if a pattern names them. Addresses of stores
(`s3://bucket/shards/*.tar`) are patterns too.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mm1.data.skips import Skips
from mm1.errors import UserError
from mm1.places import is_address
from mm1.remote.opening import absolute
from mm1.remote.search import below, common_folder, kinds_of, matches

Choose = Callable[[list[str]], tuple[list[str], Mapping[str, str]]]
"""From the names of the files of one folder: those of source files, and those that are left out, each with the reason
(empty: it is of a kind that the format doesn't read). What is among neither belongs to the source files."""

_HIDDEN = re.compile(r"(?:^|/)(?:\.(?!\.?(?:/|$))|__MACOSX(?:/|$))")
_MAX_ENDINGS = 20  # of files that are left out, each counted apart; the others together
_NAMED = 3  # missing files that a message names


@dataclass(frozen=True)
class Found:
    """What patterns name.

    Attributes:
        files: Absolute paths, or addresses, in reading order, each once.
        root: Directory that ids are told from: the one directory that was named, or what all files share.
        unread: Files and folders that were found there and are not read.
    """

    files: list[str]
    root: str
    unread: Skips = field(default_factory=Skips)


def find_files(patterns: Sequence[str], choose: Choose, wanted: str) -> Found:
    """Return the files that patterns name, each once, sorted within each pattern (what links lead to comes last).

    Args:
        patterns: Files, directories (taken with all below them, linked ones too), globs, and braces as in
            `{00000..00041}.tar` or `{train,val}.jsonl`.
        choose: Tells source files from others. A file that is named itself is one; so is one that a glob matches,
            whatever its kind, unless it belongs to others.
        wanted: What source files are called, for messages: `.tar`.

    Raises:
        UserError: If a pattern, or one of the names that its braces spell out, names nothing; if some are addresses and
            others aren't.
    """
    if 0 < sum(map(is_address, patterns)) < len(patterns):
        raise UserError(f"{', '.join(patterns)}: files and addresses can't be one source: build them one by one")
    if not patterns:
        raise UserError("no source is named: give files, directories or patterns such as 'shards/{00000..00041}.tar'")
    search = _Search(choose)
    found: dict[str, str] = {}
    for pattern in patterns:
        names = expand_braces(os.path.expanduser(pattern))  # a shell leaves quoted ones as they are
        search.look_at([name for name in names if is_address(name)])
        files = {name: search.files_of(name) for name in names}
        missing = [name for name in names if not files[name]]
        if missing:
            raise UserError(_nothing(pattern, missing, len(names), wanted, search.unread()))
        for file in (file for name in names for file in files[name]):
            folder, name = os.path.split(file)
            found.setdefault(os.path.join(search.real(folder), name), file)
    return Found(list(found.values()), search.root(list(found.values()), patterns), search.unread())


def expand_braces(pattern: str) -> list[str]:
    """Return the patterns that `{a,b}` and `{000..041}` stand for, inside of one another too; all else stays.

    >>> expand_braces("{a,b}/{08..10}.tar")
    ['a/08.tar', 'a/09.tar', 'a/10.tar', 'b/08.tar', 'b/09.tar', 'b/10.tar']
    """
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", pattern)
    if match is None:
        return [pattern]
    first, last, spelt = match.groups()
    if spelt is not None:
        choices = spelt.split(",")
    else:
        step = 1 if int(first) <= int(last) else -1
        choices = [str(n).zfill(len(first)) for n in range(int(first), int(last) + step, step)]
    head, tail = pattern[: match.start()], pattern[match.end() :]
    names = [name for choice in choices for name in expand_braces(head + choice + tail)]
    return list(dict.fromkeys(names))


def is_hidden(name: str) -> bool:
    """Whether a path in an archive is hidden, or one of those that macOS adds."""
    return _HIDDEN.search(name) is not None


def ending(name: str) -> str:
    """Return the end of a file's name from its last dot, in lower case."""
    return os.path.splitext(name)[1].lower()


class _Search:
    """Looks below the places that patterns name, and remembers what it leaves out."""

    def __init__(self, choose: Choose) -> None:
        self._choose = choose
        self._skips = Skips()
        self._others: dict[str, str] = {}  # file that is not read -> its ending
        self._real: dict[str, str] = {}
        self._kinds: dict[str, str | None] = {}  # of addresses

    def unread(self) -> Skips:
        """Return what was left out so far."""
        skips = Skips(self._skips.counts.copy(), {reason: list(some) for reason, some in self._skips.examples.items()})
        common = {end for end, _ in Counter(self._others.values()).most_common(_MAX_ENDINGS)}
        for file, end in self._others.items():
            kind = (end or "no ending") if end in common else "other endings"
            skips.add(f"file of a kind that the format doesn't read ({kind})", file)
        return skips

    def real(self, folder: str) -> str:
        """Return where a folder really is."""
        if folder not in self._real:
            self._real[folder] = folder if is_address(folder) else os.path.realpath(folder)
        return self._real[folder]

    def files_of(self, name: str) -> list[str]:
        """Return the files that a name without braces stands for."""
        if is_address(name):
            return self._files_at(name)
        if os.path.isdir(name):
            return list(self._below(name))
        if os.path.exists(name):  # names with brackets are names, not patterns
            return [os.path.abspath(name)]
        files: list[str] = []
        by_folder: dict[str, list[str]] = {}
        for match in self._glob(re.sub(r"(^|/)\*\*/?$", "", name) or "."):  # a directory is taken with all below it
            if os.path.isdir(match):
                files += self._below(match)
            else:
                folder, file = os.path.split(os.path.abspath(match))
                by_folder.setdefault(folder, []).append(file)
        return files + self._matched(by_folder)

    def root(self, files: Sequence[str], patterns: Sequence[str]) -> str:
        """Return the directory that ids of files are told from."""
        if is_address(patterns[0]):
            alone = len(patterns) == 1 and self._kinds.get(patterns[0]) == "directory"
            return patterns[0].rstrip("/") if alone else common_folder(files)
        if len(patterns) == 1 and os.path.isdir(patterns[0]):
            return os.path.abspath(patterns[0])
        return os.path.commonpath([os.path.dirname(file) for file in files])

    def look_at(self, addresses: list[str]) -> None:
        """Ask what lies at addresses, together."""
        self._kinds.update(kinds_of(addresses) if addresses else {})

    def _files_at(self, address: str) -> list[str]:
        """Return the addresses that one without braces stands for."""
        kind = self._kinds[address]
        if kind == "file":
            return [address]
        folders = [address.rstrip("/")] if kind == "directory" else []
        by_folder: dict[str, list[str]] = {}
        for match, is_folder in {} if folders else matches(address).items():
            if is_folder:
                folders.append(match)
            else:
                folder, name = os.path.split(match)
                by_folder.setdefault(folder, []).append(name)
        files: list[str] = []
        for top in folders:
            within: dict[str, list[str]] = {}
            for folder, name in map(os.path.split, below(top)):
                within.setdefault(folder, []).append(name)
            for folder, names in within.items():
                files += self._chosen(folder, dict.fromkeys(names, True))
        return files + self._matched(by_folder)

    def _matched(self, by_folder: Mapping[str, list[str]]) -> list[str]:
        """Return the source files among those that a glob matches, by their folders."""
        files: list[str] = []
        for folder, names in by_folder.items():
            sources, left_out = self._choose(names)
            taken = {*sources, *(name for name, reason in left_out.items() if not reason)}
            files += [os.path.join(folder, name) for name in names if name in taken]
            for name, reason in left_out.items():
                if reason:
                    self._skips.add(reason, os.path.join(folder, name))
        return files

    def _glob(self, pattern: str) -> list[str]:
        """Return what a pattern matches, sorted; unlike `glob.glob`, circles of links end and lost folders count."""
        head, name = os.path.split(pattern)
        if not glob.has_magic(pattern) or head == pattern:
            return [pattern] if os.path.lexists(pattern) else []
        tops = [top for top in self._glob(head) if os.path.isdir(top)] if head else [""]
        if name == "**":
            return [folder for top in tops for folder, _ in self._walk(top or ".")]
        if not glob.has_magic(name):
            return [path for path in (os.path.join(top, name) for top in tops) if os.path.lexists(path)]
        matches = [(top, match) for top in tops for match in fnmatch.filter(self._names(top or "."), name)]
        return [os.path.join(top, match) for top, match in matches if name[0] == "." or match[0] != "."]

    def _names(self, folder: str) -> list[str]:
        try:
            return sorted(os.listdir(folder))
        except OSError as error:
            self._skips.add("folder that can't be read", f"{folder} ({error.strerror})")
            return []

    def _below(self, top: str) -> Iterator[str]:
        for folder, files in self._walk(top):
            yield from self._chosen(folder, files)

    def _chosen(self, folder: str, files: Mapping[str, bool]) -> Iterator[str]:
        """Yield the source files of a folder; of each of its files it is told whether it is one."""
        sources, left_out = self._choose(list(files))
        place = absolute(folder)
        for name in sources:
            if files[name]:
                yield os.path.join(place, name)
            else:
                self._skips.add("link that leads nowhere, or no regular file", os.path.join(folder, name))
        for name, reason in left_out.items():
            path = os.path.join(folder, name)
            if reason:
                self._skips.add(reason, path)
            else:
                self._others[path] = ending(name)

    def _walk(self, top: str) -> Iterator[tuple[str, dict[str, bool]]]:
        """Yield every folder from a top one down with its files' names, and whether they are files; each folder once.

        Links to folders are followed when all else is done, so that what can be named without them is.
        """
        seen: set[str] = set()
        waiting, links = [top], list[str]()
        while waiting or links:
            folder = waiting.pop() if waiting else links.pop(0)
            if self.real(folder) in seen:
                self._skips.add("link to a folder that is read already", folder)
                continue
            seen.add(self.real(folder))
            try:
                with os.scandir(folder) as entries:
                    visible = sorted((e for e in entries if not e.name.startswith(".")), key=lambda e: e.name)
            except OSError as error:
                self._skips.add("folder that can't be read", f"{folder} ({error.strerror})")
                continue
            folders = [entry for entry in visible if _is(entry.is_dir)]
            waiting += [entry.path for entry in reversed(folders) if not entry.is_symlink()]
            links += [entry.path for entry in folders if entry.is_symlink()]
            skipped = {entry.name for entry in folders}
            yield folder, {entry.name: _is(entry.is_file) for entry in visible if entry.name not in skipped}


def _is(true: Callable[[], bool]) -> bool:
    try:
        return true()
    except OSError:  # a link that leads to itself
        return False


def _nothing(pattern: str, missing: list[str], names: int, wanted: str, unread: Skips) -> str:
    """Return the message about names that stand for nothing."""
    if names > 1:
        which = ", ".join(missing[:_NAMED]) + (f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else "")
        return (
            f"{pattern}: of the {names} names that the braces spell out, {len(missing)} lead to no file ({which}): "
            "fetch what is missing, or name the files that there are (with * in place of the braces, say)"
        )
    if os.path.isdir(pattern) or (is_address(pattern) and unread.counts):
        there = "; ".join(f"{count}x {reason}" for reason, count in unread.counts.most_common(5))
        return f"{pattern}: there is no {wanted} below it" + (f", only this: {there}" if there else ": check the path")
    if is_address(pattern):
        return f"{pattern}: nothing is there: check the address (and quote patterns)"
    return f"{pattern}: no such file: check the path (and quote patterns)"
