"""Shows figures of a split and of a plan as histograms in the terminal.

show_stats(open_split("scenes/train"))
show_plan_stats(Plan(Path("runs/demo/plan")))
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from rich.console import Console
from rich.table import Table
from rich.text import Text

from mm1.data.corpus import Split
from mm1.data.schema import TARGET
from mm1.look.pictures import read_header
from mm1.plan.plan import Plan
from mm1.progress import progress_bar, terminal

PICTURES_LOOKED_AT = 500
"""Number of pictures whose sizes are read, spread evenly over the split."""

_BAR_WIDTH = 40
_ONE_BIN_PER_VALUE = 12


@dataclass(frozen=True)
class SplitStats:
    """The figures of a split.

    Attributes:
        kinds: Number of documents of each kind.
        characters: (documents,) int64 characters of all texts.
        target_characters: (documents,) int64 characters of the target texts.
        images: (documents,) int64 number of pictures.
        picture_sides: (sampled pictures,) int64 longer side in pixels; 0 if the picture can't be read.
    """

    kinds: Mapping[str, int]
    characters: np.ndarray
    target_characters: np.ndarray
    images: np.ndarray
    picture_sides: np.ndarray


def split_stats(split: Split) -> SplitStats:
    """Return the figures of a split, from its texts and a sample of its pictures' headers."""
    columns = []
    with progress_bar() as bar:
        task = bar.add_task(f"read {split.name}", total=len(split), note="")
        for batch in split.batches():
            documents = batch.column("parts")
            parts = documents.flatten()
            texts = parts.field("text")
            is_text = texts.is_valid().to_numpy(zero_copy_only=False)
            characters = pc.fill_null(pc.utf8_length(texts), 0).to_numpy().astype(np.int64)
            target = parts.field(TARGET).to_numpy(zero_copy_only=False).astype(bool)
            ends = documents.offsets.to_numpy() - documents.offsets[0].as_py()
            columns.append([_per_document(values, ends) for values in (characters, characters * target, ~is_text)])
            bar.advance(task, len(documents))
    empty = [[np.zeros(0, np.int64)] * 3]
    characters, target_characters, images = (np.concatenate(c) for c in zip(*(columns or empty), strict=True))
    return SplitStats(split.info.get("kinds", {}), characters, target_characters, images, _picture_sides(split, images))


def show_stats(split: Split, console: Console | None = None) -> None:
    """Print a split's figures: the totals, then histograms.

    Args:
        split: The split.
        console: The console to print to; default: standard output.
    """
    console = console or terminal()
    stats = split_stats(split)
    characters, target = int(stats.characters.sum()), int(stats.target_characters.sum())
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in stats.kinds.items())
    console.print(
        Text(split.name, "bold"),
        f": {len(split):,} documents ({kinds}), {int(stats.images.sum()):,} images, "
        f"{characters:,} characters, {target / max(1, characters):.0%} of them targets",
        sep="",
    )
    console.print(histogram("characters per document", stats.characters))
    console.print(histogram("images per document", stats.images))
    if len(stats.picture_sides):
        title = f"longer side of {len(stats.picture_sides):,} images in pixels (0: unreadable)"
        console.print(histogram(title, stats.picture_sides))


def show_plan_stats(plan: Plan, console: Console | None = None) -> None:
    """Print for each kind how a plan fills its sequences: documents, images and free tokens per sequence.

    Args:
        plan: The plan, which is read completely.
        console: The console to print to; default: standard output.
    """
    console = console or terminal()
    kinds = np.array([source["kind"] for source in plan.info["sources"].values()])[plan.source]
    pieces = np.diff(np.append(plan.first_piece, len(plan.document)))
    tokens, images = (np.add.reduceat(c, plan.first_piece, dtype=np.int64) for c in (plan.length, plan.images))
    for kind, entry in plan.info["kinds"].items():
        of_kind = kinds == kind
        if not of_kind.any():
            continue
        console.print(Text(kind, "bold"), f": {entry['sequences']:,} sequences", sep="")
        console.print(histogram("pieces per sequence", pieces[of_kind]))
        console.print(histogram(f"images per sequence (limit {entry['images_per_sequence']})", images[of_kind]))
        console.print(histogram("free tokens per sequence", plan.info["sequence_length"] - tokens[of_kind]))


def histogram(title: str, values: np.ndarray) -> Table:
    """Return counts by value as bars; many different values are grouped by powers of two.

    Args:
        title: The name of the values.
        values: (n,) whole numbers, 0 or more.
    """
    table = Table(title=title, title_justify="left", caption_justify="left", box=None, show_header=False)
    table.add_column(justify="right", style="cyan", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(justify="right")
    table.add_column(justify="right", style="dim")
    if not len(values):
        return table
    table.caption = (
        f"median {np.median(values):,.0f}, mean {values.mean():,.1f}, 95 % up to {np.quantile(values, 0.95):,.0f}, "
        f"most {values.max():,}"
    )
    rows = bins(values)
    most = max(count for _, count in rows)
    for label, count in rows:
        bar = "█" * max(1 if count else 0, round(_BAR_WIDTH * count / most))
        table.add_row(label, bar, f"{count:,}", f"{count / len(values):.1%}")
    return table


def bins(values: np.ndarray) -> list[tuple[str, int]]:
    """Return (label, count) of each bin: one per value if there are few, else 0, 1, 2-3, 4-7, 8-15, ...

    Empty bins between the first and the last one are included, so that gaps show.
    """
    low, high = int(values.min()), int(values.max())
    if high - low < _ONE_BIN_PER_VALUE:
        return [(f"{low + n:,}", int(c)) for n, c in enumerate(np.bincount(values - low))]
    # frexp gives the number of binary digits: exact, where a logarithm rounds.
    counts = np.bincount(np.frexp(values.astype(np.float64))[1])
    first = int(np.flatnonzero(counts)[0])
    return [(_label(digits), int(counts[digits])) for digits in range(first, len(counts))]


def _label(digits: int) -> str:
    low, high = (1 << digits) >> 1, (1 << digits) - 1
    return f"{low:,}" if low >= high else f"{low:,}–{high:,}"


def _per_document(values: np.ndarray, ends: np.ndarray) -> np.ndarray:
    return np.diff(np.concatenate([[0], np.cumsum(values, dtype=np.int64)])[ends])


def _picture_sides(split: Split, images: np.ndarray) -> np.ndarray:
    """Return the longer sides of pictures, one from each of a sample of documents spread evenly over the split."""
    with_images = np.flatnonzero(images)
    if not len(with_images):
        return np.zeros(0, np.int64)
    rows = np.unique(np.linspace(0, len(with_images) - 1, PICTURES_LOOKED_AT).astype(np.int64))
    headers = [read_header(split[int(row)].images[0].read()) for row in with_images[rows]]
    return np.array([max(header.width, header.height) for header in headers], dtype=np.int64)
