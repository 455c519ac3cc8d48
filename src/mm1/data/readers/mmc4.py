"""Multimodal C4: JSON Lines with `text_list` and `image_info`, and a folder of pictures.

Every entry of `image_info` has `image_name` (a file of the folder), `matched_text_index` (the sentence that it goes
with) and `matched_sim` (arXiv 2304.06939, README of github.com/allenai/mmc4). A picture is put before its sentence,
as OpenFlamingo does (arXiv 2308.01390); pictures of one sentence keep the order of `image_info`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

from mm1.data.readers.layout import page_parts
from mm1.data.readers.lines import read_json_records
from mm1.data.readers.opening import JSON_SUFFIXES
from mm1.data.readers.picture_folder import PictureFolder
from mm1.data.readers.pictures import PICTURE_SUFFIXES
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.data.readers.rows import Place, documents_of
from mm1.data.readers.values import LeftOutError, as_text, index_of, is_given, kind_of
from mm1.document import Document, Image


@dataclass(frozen=True)
class Mmc4(Reader):
    """Interleaved pages in JSON Lines with pictures in a folder.

    Attributes:
        pictures: The folder of pictures, where they don't lie beside the file that names them.
        min_similarity: Pictures whose `matched_sim` is lower are left out (OpenFlamingo took 0.24).
    """

    suffixes: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    min_similarity: float = 0.0

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield an interleaved document for every line."""
        for file in shard.files:
            records = read_json_records(file, shard.name(file), notes)
            pictures = PictureFolder.beside(file, shard.root, self.pictures)
            yield from documents_of(records, partial(_document, min_similarity=self.min_similarity), notes, pictures)


def _document(record: dict[str, Any], place: Place, min_similarity: float) -> Document:
    sentences = record.get("text_list")
    if not isinstance(sentences, list):
        raise LeftOutError(f"text_list that is {kind_of(sentences)}")
    texts = [as_text(sentence) for sentence in sentences]
    for number, text in enumerate(texts):
        if text is None:
            place.lose(f"sentence that is {kind_of(sentences[number])}", f"[{number}]")
    infos = record.get("image_info")
    if not isinstance(infos, list):
        if is_given(infos):
            place.lose(f"image_info that is {kind_of(infos)}")
        infos = []
    before: dict[int, list[Image]] = {}
    for info in infos:
        placed = _picture(info, len(sentences), place, min_similarity)
        if placed is not None:
            before.setdefault(placed[0], []).append(placed[1])
    parts = page_parts((item for n, text in enumerate(texts) for item in (*before.get(n, ()), text or "")), joint=" ")
    if not parts:
        raise LeftOutError("page without text and usable pictures")
    address = record.get("url")
    return Document(place.name, "interleaved", parts, {"url": address} if isinstance(address, str) else {})


def _picture(info: Any, sentences: int, place: Place, min_similarity: float) -> tuple[int, Image] | None:
    """Return which sentence a picture goes with, and the picture; None, counted, if there is none."""
    name = info.get("image_name") if isinstance(info, dict) else None
    if not isinstance(name, str):
        place.lose("image_info without an image_name")
        return None
    index = index_of(info.get("matched_text_index"))
    if index is None or not 0 <= index < sentences:
        place.lose("matched_text_index that names no sentence", f": {name}")
        return None
    similarity = info.get("matched_sim")
    if isinstance(similarity, (int, float)) and similarity < min_similarity:
        place.lose(f"matched_sim below {min_similarity:g}", f": {name}")
        return None
    address = info.get("raw_url")
    picture = place.picture_or_loss(name, address if isinstance(address, str) else None)
    return None if picture is None else (index, picture)
