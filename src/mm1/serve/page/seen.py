"""What the model sees of a prompt: the square images of its pictures, and its tokens."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image as PILImage

from mm1.document import Document
from mm1.look.pictures import as_png, data_url
from mm1.look.tiles import TileView
from mm1.processing.images import picture_size
from mm1.serve.inputs import MM1Inputs

_SIDE = 336
"""Pixels of the largest image that is sent; larger ones are shown smaller than the model sees them."""

_LOSSLESS = 128


def seen(inputs: MM1Inputs, document: Document) -> dict[str, Any]:
    """Return the tiles of each picture and the tokens of a prompt, as JSON.

    Returns:
        `pictures`: of each its `width` and `height` in pixels, `rows` and `columns` of its grid, `tokens`, a `summary`
        and its `images` in the order in which the decoder reads them (`name`, `row` and `column` or None for the whole
        picture, `source` as a data URL, `tokens`). `tokens`: in order `{"text": ...}`, or `{"picture": index, "count":
        ...}` for a picture's. `count`: of all tokens. `size`: the side of the model's images in pixels.

    Raises:
        Problem: If the prompt can't be laid out, is too long, or a picture can't be read.
    """
    processor = inputs.processor
    prompt = inputs.prepare(document)
    encoded = processor.encode(document, close=False)
    pixels = prompt.tensors["pixel_values"]
    pictures: list[dict[str, Any]] = []
    start = 0
    for number, image in enumerate(encoded.images):
        tiling = processor.tiling(image)
        squares = pixels[start : start + len(tiling)]
        start += len(tiling)
        width, height = picture_size(image.read())
        name = f"picture {number + 1}"
        view = TileView(name, width, height, tiling, squares, processor.tokens_per_image)
        crops = iter(range(len(tiling.crops)))
        places = [None if box is None else divmod(next(crops), tiling.columns) for box in tiling.images]
        pictures.append(
            {
                "width": width,
                "height": height,
                "rows": tiling.rows,
                "columns": tiling.columns,
                "tokens": view.tokens,
                "summary": view.summary,
                "images": [
                    {
                        "name": title,
                        "row": None if place is None else place[0],
                        "column": None if place is None else place[1],
                        "source": _source(square),
                        "tokens": view.tokens_per_image,
                    }
                    for title, place, square in zip(view.names, places, squares, strict=True)
                ],
            }
        )
    return {
        "pictures": pictures,
        "tokens": _tokens(processor, encoded),
        "count": prompt.length,
        "size": processor.image_size,
    }


def _source(square: np.ndarray) -> str:
    """Return an image (3, H, W) uint8 as a data URL."""
    picture = PILImage.fromarray(np.ascontiguousarray(square.transpose(1, 2, 0)))
    if picture.width <= _LOSSLESS:
        return data_url(as_png(picture))
    picture.thumbnail((_SIDE, _SIDE))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=90)
    return data_url(stream.getvalue(), "image/jpeg")


def _tokens(processor: Any, encoded: Any) -> list[dict[str, Any]]:
    tokens: list[dict[str, Any]] = []
    pictures = {int(start): number for number, start in enumerate(encoded.image_starts)}
    place = 0
    while place < len(encoded.input_ids):
        if (number := pictures.get(place)) is not None:
            count = int(encoded.image_lengths[number])
            tokens.append({"picture": number, "count": count})
            place += count
        else:
            tokens.append({"text": processor.tokenizer.decode([int(encoded.input_ids[place])])})
            place += 1
    return tokens
