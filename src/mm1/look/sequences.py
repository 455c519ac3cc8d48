"""Shows a plan's sequences: the positions of documents, pictures, target text and padding.

show_sequences(open_sequences(Path("runs/demo")), range(3))
write_sequences(open_sequences(Path("runs/demo")), range(20), Path("sequences.html"), title="runs/demo")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.rule import Rule
from rich.text import Text as Styled

from mm1.document import KINDS, Document, Image
from mm1.errors import UserError
from mm1.look.page import printable, write_page
from mm1.look.pictures import embedded, read_header
from mm1.plan.loader import PlanDataset
from mm1.progress import terminal

_BAR_WIDTH = 100
_STYLES = {"image": ("▒", "green"), "target": ("█", "cyan"), "given": ("░", "cyan"), "padding": ("·", "dim")}


@dataclass(frozen=True)
class Span:
    """A stretch of tokens of one type.

    Attributes:
        sort: `image`, `target`, `given` (text that is no target) or `padding`.
        tokens: Number of tokens.
        content: The text, or the picture.
    """

    sort: str
    tokens: int
    content: str | Image


@dataclass(frozen=True)
class Piece:
    """A document, or the stretch of one that is in a sequence.

    Attributes:
        document: The whole document.
        first: Index of the piece's first token in the encoded document.
        document_tokens: Tokens of the whole document.
        spans: The piece's spans, in order.
    """

    document: Document
    first: int
    document_tokens: int
    spans: tuple[Span, ...]

    @property
    def tokens(self) -> int:
        """The number of the piece's tokens."""
        return sum(span.tokens for span in self.spans)

    def __str__(self) -> str:
        whole = self.tokens == self.document_tokens
        part = (
            "" if whole else f", tokens {self.first:,} to {self.first + self.tokens - 1:,} of {self.document_tokens:,}"
        )
        return f"{self.document.id} ({self.tokens:,} tokens{part})"


def pieces_of(dataset: PlanDataset, number: int) -> Iterator[Piece]:
    """Yield the pieces of a sequence, as the loader joins them.

    Args:
        dataset: The plan's sequences.
        number: The sequence's number.

    Raises:
        UserError: If the plan has no such sequence.
    """
    plan, processor = dataset.plan, dataset.processor
    if not 0 <= number < len(plan):
        raise UserError(f"sequence {number} doesn't exist: choose one from 0 to {len(plan) - 1}")
    split = dataset.splits[int(plan.source[number])]
    for row in plan.pieces(number):
        first, length = int(plan.first[row]), int(plan.length[row])
        document = split[int(plan.document[row])]
        encoded = dataset.encode(
            int(plan.source[number]), int(plan.document[row]), document, range(first, first + length)
        )
        target = encoded.target.copy()
        target[first] = False  # as in the loader
        owner = np.full(len(target), -1)
        for image, start in enumerate(encoded.image_starts):
            owner[start : start + encoded.image_lengths[image]] = image
        sorts = list(zip(owner.tolist(), target.tolist(), strict=True))
        spans = []
        for (image, is_target), positions in groupby(range(first, first + length), sorts.__getitem__):
            tokens = list(positions)
            if image >= 0:
                spans.append(Span("image", len(tokens), encoded.images[image]))
            else:
                text = processor.tokenizer.decode(encoded.input_ids[tokens])
                spans.append(Span("target" if is_target else "given", len(tokens), text))
        yield Piece(document, first, len(target), tuple(spans))


def show_sequences(dataset: PlanDataset, numbers: Iterable[int], console: Console | None = None) -> None:
    """Print sequences: a proportional bar, then each piece; text that isn't a target is dimmed.

    Args:
        dataset: The plan's sequences.
        numbers: The sequences' numbers.
        console: The console to print to; default: standard output.

    Raises:
        UserError: If the plan has no such sequence.
    """
    console = console or terminal()
    console.print(_legend())
    for number in numbers:
        pieces = list(pieces_of(dataset, number))
        console.print(Rule(Styled(_heading(dataset, number, pieces), style="bold"), align="left"))
        console.print(_bar(dataset, pieces), soft_wrap=True)
        for piece in pieces:
            console.print(Styled(printable(str(piece)), style="bold cyan"), soft_wrap=True)
            body = Styled()
            for span in piece.spans:
                if isinstance(span.content, Image):
                    body.append(f"[{read_header(span.content.read())}, {span.tokens} tokens]", style="green")
                else:
                    body.append(printable(span.content), style="" if span.sort == "target" else "dim")
            console.print(body, soft_wrap=True)


def write_sequences(dataset: PlanDataset, numbers: Iterable[int], path: Path, title: str) -> None:
    """Write one self-contained HTML page that shows sequences with their pictures.

    Args:
        dataset: The plan's sequences.
        numbers: The sequences' numbers.
        path: The file to write; replaced if it exists.
        title: Heading of the page.

    Raises:
        UserError: If the plan has no such sequence, or the file can't be written.
    """
    shown = []
    for number in numbers:
        pieces = list(pieces_of(dataset, number))
        shown.append(
            {
                "heading": _heading(dataset, number, pieces),
                "pieces": [_piece_on_page(piece) for piece in pieces],
                "padding": _padding(dataset, pieces),
            }
        )
    write_page(path, "sequences.html", title=title, sequences=shown)


def _piece_on_page(piece: Piece) -> dict[str, Any]:
    spans = [
        {"sort": s.sort, "tokens": s.tokens, "image": embedded(s.content)}
        if isinstance(s.content, Image)
        else {"sort": s.sort, "tokens": s.tokens, "text": s.content}
        for s in piece.spans
    ]
    return {"name": str(piece), "tokens": piece.tokens, "spans": spans}


def _heading(dataset: PlanDataset, number: int, pieces: list[Piece]) -> str:
    plan = dataset.plan
    source = int(plan.source[number])
    kind, size = KINDS[dataset.kinds[source]], plan.info["sequence_length"]
    images = plan.count_images(number, number + 1)
    target = sum(span.tokens for piece in pieces for span in piece.spans if span.sort == "target")
    step = number // plan.info["batch_size"] + 1
    count = "1 piece" if len(pieces) == 1 else f"{len(pieces)} pieces"
    return (
        f"sequence {number:,} of step {step:,}: {kind} from {dataset.splits[source].name}, {count}, "
        f"{size - _padding(dataset, pieces):,} of {size:,} tokens, {target:,} targets, {images} images"
    )


def _padding(dataset: PlanDataset, pieces: list[Piece]) -> int:
    return dataset.plan.info["sequence_length"] - sum(piece.tokens for piece in pieces)


def _bar(dataset: PlanDataset, pieces: list[Piece]) -> Styled:
    """Return the sequence as a line of characters, each for an equal share of the tokens; pieces alternate shades."""
    marks: list[tuple[str, str]] = []
    for number, piece in enumerate(pieces):
        for span in piece.spans:
            mark, colour = _STYLES[span.sort]
            marks += [(mark, colour if number % 2 == 0 else f"bright_{colour}")] * span.tokens
    marks += [_STYLES["padding"]] * _padding(dataset, pieces)
    bar = Styled()
    for column in range(min(_BAR_WIDTH, len(marks))):
        bar.append(*marks[column * len(marks) // _BAR_WIDTH if len(marks) > _BAR_WIDTH else column])
    return bar


def _legend() -> Styled:
    legend = Styled()
    for name, (mark, colour) in _STYLES.items():
        legend.append(f"{mark} ", style=colour)
        legend.append(f"{'other text' if name == 'given' else name}   ", style="dim")
    return legend
