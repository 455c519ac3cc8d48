"""wordnet: definitions of words, one entry per meaning.

Source: the Debian package `wordnet-base`, WordNet licence. The manual page wndb(5WN) describes the files.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from mm1.corpora.heldout import check_share, is_held_out
from mm1.corpora.material import Material
from mm1.document import Document, Text
from mm1.errors import UserError
from mm1.fetch.debian import fetch_deb, package_name, read_deb, read_licence
from mm1.progress import track

PACKAGE = "wordnet-base"

_FOLDER = "usr/share/wordnet/"
_PARTS_OF_SPEECH = {"noun": "noun", "verb": "verb", "adj": "adjective", "adv": "adverb"}
# offset, number of the lexicographer's file, type, number of words in hexadecimal, words and pointers, gloss
_LINE = re.compile(r"(\d{8}) (\d\d) [nvasr] ([0-9a-f]{2}) (.+?) \| (.+)")
_POSITION = re.compile(r"\((?:a|p|ip)\)$")  # marks the possible positions of an adjective


@dataclass(frozen=True, slots=True)
class Meaning:
    """One meaning, with the words that have it.

    Attributes:
        id: Part of speech and offset in the file, such as `noun/00001740`.
        part_of_speech: `noun`, `verb`, `adjective` or `adverb`.
        words: The words, the most usual first.
        gloss: The definition, with examples in quotation marks.
        file: The number of the lexicographer's file, which is its subject: 05 has the animals (lexnames(5WN)).
    """

    id: str
    part_of_speech: str
    words: tuple[str, ...]
    gloss: str
    file: str


def build(*, heldout: float = 0.02, seed: int = 0) -> Material:
    """Return the material of wordnet; splits `train` and `heldout`; meanings with the same first word share a split.

    Args:
        heldout: Share of the first words that is held out.
        seed: The seed of the choice of held-out words.
    """
    check_share(heldout)
    archive = fetch_deb(PACKAGE)
    files = {f"{_FOLDER}data.{file}": name for file, name in _PARTS_OF_SPEECH.items()}
    contents = _contents(archive, files)
    splits: dict[str, list[Meaning]] = {"train": [], "heldout": []}
    for file, name in files.items():
        for meaning in _meanings(contents[file].decode("utf-8"), name):
            splits["heldout" if is_held_out(heldout, seed, meaning.words[0].casefold()) else "train"].append(meaning)
    return Material(
        splits={split: _documents(meanings, split) for split, meanings in splits.items()},
        licence=read_licence(archive),
        sources=[f"Debian package {package_name(archive)}: {_FOLDER}data.{{{','.join(_PARTS_OF_SPEECH)}}}"],
        derived="An entry is written `words (part of speech): gloss`. Meanings with the same first word share a split.",
    )


def noun_senses(words: Collection[str]) -> dict[str, list[Meaning]]:
    """Return the meanings of nouns, the most usual first; words that have none are missing.

    Args:
        words: Nouns as WordNet writes them, in lower case (`hot dog`).

    Raises:
        UserError: If the package can't be downloaded or read.
    """
    archive = fetch_deb(PACKAGE)
    data, index = f"{_FOLDER}data.noun", f"{_FOLDER}index.noun"
    contents = _contents(archive, (data, index))
    meanings = {meaning.id: meaning for meaning in _meanings(contents[data].decode("utf-8"), "noun")}
    senses = {}
    for line in contents[index].decode("utf-8").splitlines():
        word, *fields = line.split(" ")
        word = word.replace("_", " ")
        if word in words:
            # The line ends with the offsets of so many meanings, the most usual first.
            offsets = [field for field in fields if field][-int(fields[1]) :]
            senses[word] = [meanings[f"noun/{offset}"] for offset in offsets]
    return senses


def source() -> str:
    """Return the package as `corpus.json` names it."""
    return f"Debian package {package_name(fetch_deb(PACKAGE))}"


def licence() -> str:
    """Return the licence that the package's copyright file states."""
    return read_licence(fetch_deb(PACKAGE))


def _contents(archive: Path, files: Collection[str]) -> dict[str, bytes]:
    contents = dict(read_deb(archive, files.__contains__))
    missing = [file for file in files if file not in contents]
    if missing:
        raise UserError(f"{archive}: it has no {missing[0]}: delete it to download it again")
    return contents


def _meanings(text: str, part_of_speech: str) -> Iterator[Meaning]:
    """Yield the meanings of a data file; the licence at its beginning is indented and doesn't match."""
    for line in text.splitlines():
        match = _LINE.fullmatch(line.rstrip())
        if match is not None:
            offset, file, count, fields, gloss = match.groups()
            # A number that distinguishes its senses follows each word.
            words = fields.split()[0 : 2 * int(count, 16) : 2]
            plain = tuple(_POSITION.sub("", word).replace("_", " ") for word in words)
            yield Meaning(f"{part_of_speech}/{offset}", part_of_speech, plain, gloss.strip(), file)


def _documents(meanings: list[Meaning], split: str) -> Iterator[Document]:
    for meaning in track(meanings, f"wordnet: {split}"):
        entry = f"{', '.join(meaning.words)} ({meaning.part_of_speech}): {meaning.gloss}"
        meta = {"words": list(meaning.words), "part_of_speech": meaning.part_of_speech}
        yield Document(meaning.id, "text", (Text(entry),), meta)
