"""Shows what a model sees of a picture: every square image in order, with its tokens.

view = view_tiles(Path("page.png"), size=672, tokens_per_image=144, rule=TilingRule(grid="2x2"))
print_tiles(view)
write_tiles(view, Path("tiles.html"))
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as PILImage
from rich.console import Console
from rich.table import Table

from mm1.document import Image
from mm1.errors import UserError
from mm1.look.page import write_page
from mm1.look.pictures import as_png, data_url
from mm1.processing.images import ImageError, cut_image, decode_image
from mm1.processing.tiles import Tiling, TilingRule, tile
from mm1.progress import terminal

_GREY = (128, 128, 128)


@dataclass(frozen=True)
class TileView:
    """The images that a model sees of a picture.

    Attributes:
        name: The file's name.
        width: The picture's width in pixels.
        height: The picture's height in pixels.
        tiling: The layout of the images.
        pixels: (N, 3, size, size) uint8 pixels of the images.
        tokens_per_image: Image tokens per image.
    """

    name: str
    width: int
    height: int
    tiling: Tiling
    pixels: np.ndarray
    tokens_per_image: int

    @property
    def tokens(self) -> int:
        """The image tokens of the whole picture."""
        return len(self.tiling) * self.tokens_per_image

    @property
    def scale(self) -> float:
        """The factor by which the crops (or the only image) scale the picture's longer side."""
        left, top, right, bottom = self.tiling.inner
        return max(right - left, bottom - top) / max(self.width, self.height)

    @property
    def summary(self) -> str:
        """One sentence about the picture and its images."""
        tiling = self.tiling
        grid = f"{tiling.rows}x{tiling.columns} crops of {tiling.size} px" if tiling.crops else f"{tiling.size} px"
        images = f"{len(tiling)} images" if len(tiling) > 1 else "1 image"
        return (
            f"{self.name}: {self.width}x{self.height} px becomes {images} ({grid}), {self.tokens:,} tokens; "
            f"its longer side is scaled by {self.scale:.2f}"
        )

    @property
    def names(self) -> list[str]:
        """The name of each image, in order: `whole`, or the crop's row and column."""
        columns = self.tiling.columns
        crops = iter(range(len(self.tiling.crops)))
        names = []
        for box in self.tiling.images:
            number = None if box is None else next(crops)
            names.append("whole" if number is None else f"row {number // columns + 1}, column {number % columns + 1}")
        return names


def view_tiles(picture: Path, size: int, tokens_per_image: int, rule: TilingRule) -> TileView:
    """Cut a picture as a model does.

    Args:
        picture: The picture's file.
        size: Side of the tower's images in pixels.
        tokens_per_image: Image tokens per image.
        rule: The rule by which pictures are cut.

    Raises:
        UserError: If the file is not a readable picture.
    """
    try:
        image = decode_image(Image(path=str(picture)).read())
    except ImageError as error:
        raise UserError(f"{picture}: {error}: name a PNG, JPEG, WebP or similar file") from None
    tiling = tile(*image.size, size, rule)
    return TileView(picture.name, *image.size, tiling, cut_image(image, tiling, _GREY), tokens_per_image)


def print_tiles(view: TileView, console: Console | None = None) -> None:
    """Print the images of a picture, in the order in which the decoder reads them."""
    console = console or terminal()
    console.print(view.summary, soft_wrap=True)
    table = Table(box=None)
    for name in ("image", "what", "from the scaled picture", "tokens"):
        table.add_column(name, justify="right" if name in ("image", "tokens") else "left")
    for number, (name, box) in enumerate(zip(view.names, view.tiling.images, strict=True), start=1):
        area = "all of it" if box is None else f"x {box[0]} to {box[2]}, y {box[1]} to {box[3]}"
        table.add_row(str(number), name, area, f"{view.tokens_per_image:,}")
    console.print(table)


def write_tiles(view: TileView, path: Path) -> None:
    """Write one self-contained HTML page that shows the images.

    Raises:
        UserError: If the file can't be written.
    """
    shown = [
        {
            "name": name,
            "source": data_url(as_png(PILImage.fromarray(square.transpose(1, 2, 0)))),
            "tokens": view.tokens_per_image,
        }
        for name, square in zip(view.names, view.pixels, strict=True)
    ]
    write_page(
        path,
        "tiles.html",
        title=view.name,
        summary=view.summary,
        wholes=[image for image in shown if image["name"] == "whole"],
        crops=[image for image in shown if image["name"] != "whole"],
        first=shown[0]["name"] == "whole",
        columns=view.tiling.columns,
    )
