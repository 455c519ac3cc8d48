"""Multimodal C4: JSON Lines with `text_list` and `image_info`, and a folder of pictures.

Every entry of `image_info` has `image_name` (a file of the folder), `matched_text_index` (the sentence that it goes
with) and `matched_sim` (arXiv 2304.06939, README of github.com/allenai/mmc4). A picture is put before its sentence,
as OpenFlamingo does (arXiv 2308.01390); pictures of one sentence keep the order of `image_info`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mm1.data.readers.layout import page_parts
from mm1.data.readers.lines import JSON_SUFFIXES, read_json_records
from mm1.data.readers.pictures import PICTURE_SUFFIXES, PictureFolder
from mm1.data.readers.reader import Notes, Reader, Shard
from mm1.document import Document, Image


@dataclass(frozen=True)
class Mmc4(Reader):
    """Interleaved pages in JSON Lines with pictures in a folder.

    Attributes:
        pictures: The folder of pictures; default: the folder of the sources.
        min_similarity: Pictures whose `matched_sim` is lower are left out (OpenFlamingo took 0.24).
    """

    suffixes: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    packable: ClassVar[tuple[str, ...]] = JSON_SUFFIXES
    beside: ClassVar[tuple[str, ...]] = PICTURE_SUFFIXES
    pictures: str = ""
    min_similarity: float = 0.0

    def read(self, shard: Shard, notes: Notes) -> Iterator[Document]:
        """Yield an interleaved document for every line."""
        folder = PictureFolder(self.pictures or shard.root)
        for file in shard.files:
            for where, record in read_json_records(file, shard.name(file), notes):
                document = self._document(record, where, folder, notes)
                if document is not None:
                    yield document

    def _document(self, record: dict[str, Any], where: str, folder: PictureFolder, notes: Notes) -> Document | None:
        sentences = record.get("text_list")
        if not isinstance(sentences, list) or not all(isinstance(sentence, str) for sentence in sentences):
            notes.skipped.add("record without a text_list of texts", where)
            return None
        infos = record.get("image_info", [])
        if not isinstance(infos, list):
            notes.skipped.add("image_info that is no list: taken as text", where)
            infos = []
        before: dict[int, list[Image]] = {}
        for info in infos:
            placed = self._picture(info, len(sentences), where, folder, notes)
            if placed is not None:
                before.setdefault(placed[0], []).append(placed[1])
        items = (item for n, sentence in enumerate(sentences) for item in (*before.get(n, ()), sentence))
        parts = page_parts(items, joint=" ")
        if not parts:
            notes.skipped.add("page without text and usable pictures", where)
            return None
        address = record.get("url")
        return Document(where, "interleaved", parts, {"url": address} if isinstance(address, str) else {})

    def _picture(
        self, info: Any, sentences: int, where: str, folder: PictureFolder, notes: Notes
    ) -> tuple[int, Image] | None:
        name = info.get("image_name") if isinstance(info, dict) else None
        if not isinstance(name, str):
            notes.skipped.add("image_info without an image_name", where)
            return None
        index = info.get("matched_text_index")
        if type(index) is not int or not 0 <= index < sentences:
            notes.skipped.add("matched_text_index that names no sentence", f"{where}: {name}")
            return None
        similarity = info.get("matched_sim")
        if isinstance(similarity, (int, float)) and similarity < self.min_similarity:
            notes.skipped.add(f"matched_sim below {self.min_similarity:g}", f"{where}: {name}")
            return None
        picture = folder.take(name, notes, where)
        if picture is None:
            return None
        address = info.get("raw_url")
        return index, Image(picture.data, address) if isinstance(address, str) else picture
