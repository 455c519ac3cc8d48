"""Sub-images: which square images a picture of any size becomes. Sizes only, no pixels.

    1344 x 1344, grid 2x2, tower of 672:    [ overview ]  [ 1 | 2 ]
                                                          [ 3 | 4 ]     five images of 672, 720 tokens at 144 each

The picture is laid on a canvas of rows x columns squares and cut along them; the overview is the whole picture in one
square (paper sec. 4, after SPHINX). MM1.5 (arXiv 2409.20566) chooses the grid for each picture: `dynamic`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mm1.errors import UserError

if TYPE_CHECKING:
    from mm1.recipe import Fit, Overview, ResolutionRecipe

Box = tuple[int, int, int, int]
"""Left, top, right and bottom in pixels; right and bottom are outside."""


@dataclass(frozen=True)
class TilingRule:
    """How a picture of any size becomes square images; what a processor is saved with.

    The keys are those of a recipe's `model.resolution` (see `mm1.recipe.ResolutionRecipe`), but they are a format of
    their own: models that were saved with them stay readable whatever becomes of the recipe's schema.
    """

    fit: Fit = "squash"
    grid: str = "none"
    overview: Overview = "first"
    min_tiles: int = 4
    max_tiles: int = 9
    max_pictures: int | None = None
    min_side: int = 0

    @classmethod
    def of(cls, recipe: ResolutionRecipe) -> TilingRule:
        """Return a recipe's rule."""
        return cls(**recipe.model_dump())

    @classmethod
    def from_saved(cls, saved: Mapping[str, Any]) -> TilingRule:
        """Return the rule of a saved processor; keys that it lacks have their defaults.

        Raises:
            UserError: If it has a key that this version doesn't know.
        """
        known = {field.name for field in fields(cls)}
        if unknown := sorted(saved.keys() - known):
            raise UserError(
                f"the processor's resolution has the unknown key '{unknown[0]}': it was saved by a newer mm1: "
                "upgrade mm1"
            )
        return cls(**saved)

    @property
    def rows_and_columns(self) -> tuple[int, int]:
        """The fixed grid."""
        rows, columns = self.grid.split("x")
        return int(rows), int(columns)

    @property
    def cuts(self) -> bool:
        """Whether pictures may become several images."""
        return self.grid not in ("none", "1x1")


@dataclass(frozen=True)
class Tiling:
    """The square images that a picture becomes.

    Attributes:
        size: Side of every image in pixels.
        rows: Of the grid.
        columns: Of the grid; 1x1 is a picture taken whole, without an overview beside it.
        overview: Where the overview stands among the images.
        inner: The box of the canvas (`columns * size` by `rows * size`) that the picture fills; the rest is padding.
        overview_inner: The box of the overview that the picture fills.
    """

    size: int
    rows: int
    columns: int
    overview: Overview
    inner: Box
    overview_inner: Box

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height in pixels of what the crops are cut from."""
        return self.columns * self.size, self.rows * self.size

    @property
    def crops(self) -> tuple[Box, ...]:
        """The boxes of the canvas that become images, in reading order; none if the picture is taken whole."""
        if self.rows * self.columns == 1:
            return ()
        size = self.size
        return tuple(
            (column * size, row * size, (column + 1) * size, (row + 1) * size)
            for row in range(self.rows)
            for column in range(self.columns)
        )

    @property
    def images(self) -> tuple[Box | None, ...]:
        """All images in the order in which the decoder reads them: crops by their box, None for the overview."""
        if not self.crops or self.overview == "first":
            return (None, *self.crops)
        return self.crops if self.overview == "none" else (*self.crops, None)

    def __len__(self) -> int:
        crops = self.rows * self.columns
        return 1 if crops == 1 else crops + (self.overview != "none")


def tile(width: int, height: int, size: int, rule: TilingRule, whole: bool = False) -> Tiling:
    """Return the images that a picture becomes.

    Args:
        width: Of the picture in pixels, at least 1.
        height: Likewise.
        size: Side of the square images that the tower takes.
        rule: How pictures are cut.
        whole: Take the picture as one image whatever the rule says.
    """
    rows, columns = 1, 1
    if not whole and rule.grid != "none" and max(width, height) >= rule.min_side:
        if rule.grid == "dynamic":
            rows, columns = choose_grid(width, height, size, rule.min_tiles, rule.max_tiles)
        else:
            rows, columns = rule.rows_and_columns
    return Tiling(
        size,
        rows,
        columns,
        rule.overview,
        place(width, height, columns * size, rows * size, rule.fit),
        place(width, height, size, size, rule.fit),
    )


def place(width: int, height: int, canvas_width: int, canvas_height: int, fit: Fit) -> Box:
    """Return where a picture goes on a canvas: all over it (`squash`), or as large as fits, in the middle (`pad`).

    Its shape is kept but for rounding; one pixel is the least that a side comes to.
    """
    if fit == "squash":
        return 0, 0, canvas_width, canvas_height
    if canvas_width * height <= canvas_height * width:
        inner_width, inner_height = canvas_width, max(1, round(Fraction(height * canvas_width, width)))
    else:
        inner_width, inner_height = max(1, round(Fraction(width * canvas_height, height))), canvas_height
    left, top = (canvas_width - inner_width) // 2, (canvas_height - inner_height) // 2
    return left, top, left + inner_width, top + inner_height


@lru_cache(maxsize=65_536)
def choose_grid(width: int, height: int, size: int, min_tiles: int, max_tiles: int) -> tuple[int, int]:
    """Return the grid for a picture by the rule of MM1.5 (arXiv 2409.20566): rows, columns.

    The picture is scaled, its shape kept, as large as a grid holds. Among grids that need not make it smaller, the one
    with the least padding is taken; if all would make it smaller, the one that does so least. Equals: less padding,
    then fewer tiles, then fewer rows.

    Args:
        width: Of the picture in pixels.
        height: Likewise.
        size: Side of a tile.
        min_tiles: Fewest tiles of a grid.
        max_tiles: Most.
    """

    def scale(grid: tuple[int, int]) -> Fraction:
        return min(Fraction(grid[0] * size, height), Fraction(grid[1] * size, width))

    def padding(grid: tuple[int, int]) -> Fraction:
        return grid[0] * grid[1] * size**2 - scale(grid) ** 2 * width * height

    grids = list(_grids(min_tiles, max_tiles))
    covering = [grid for grid in grids if scale(grid) >= 1]
    if covering:
        return min(covering, key=lambda grid: (padding(grid), grid[0] * grid[1], grid))
    return min(grids, key=lambda grid: (-scale(grid), padding(grid), grid[0] * grid[1], grid))


def _grids(min_tiles: int, max_tiles: int) -> Iterator[tuple[int, int]]:
    for rows in range(1, max_tiles + 1):
        for columns in range(-(-min_tiles // rows), max_tiles // rows + 1):
            yield rows, columns
