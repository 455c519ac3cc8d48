"""Is another decoder of JPEG so much faster than Pillow that it is worth a dependency?

    pip install scikit-image simplejpeg pyvips-binary pyvips
    python benchmarks/decoding.py

From the bytes of a photograph to RGB pixels at the model's size, in three ways: as `decode_image` and the processor do
it (Pillow, which stops decoding at a half, a quarter or an eighth of the size where that is enough), simplejpeg (which
can stop at any eighth) with Pillow's resizing, and libvips' `thumbnail_buffer`. The photographs are scikit-image's, as
JPEG at three sizes. The ways take turns on every photograph; the time is the processor's. Pixels are compared with
those of a full decoding and a bicubic resizing.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pyvips
import simplejpeg
import skimage.data
from PIL import Image
from rich.console import Console
from rich.table import Table

PHOTOGRAPHS = ("astronaut", "coffee", "chelsea", "rocket", "hubble_deep_field", "immunohistochemistry")
LONGER_SIDES = (512, 1024, 2048)
SIDES = (224, 336, 672)  # of the model's square


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    pyvips.cache_set_max(0)
    table = Table(title="JPEG to a square of RGB: photographs/s of a processor, and the pixels' mean distance (of 255)")
    for column in ("photograph's longer side", "square", *WAYS):
        table.add_column(column)
    for longer in LONGER_SIDES:
        pictures = [encoded(name, longer) for name in PHOTOGRAPHS]
        for side in SIDES:
            if side > longer:
                continue
            seconds: defaultdict[str, list[float]] = defaultdict(list)
            distances: defaultdict[str, list[float]] = defaultdict(list)
            for number in range(rounds):
                for data in pictures:
                    exact = np.asarray(Image.open(io.BytesIO(data)).resize((side, side), Image.Resampling.BICUBIC))
                    for name, way in WAYS.items():
                        start = time.process_time()
                        pixels = way(data, side)
                        seconds[name].append(time.process_time() - start)
                        if number == 0:
                            distances[name].append(float(np.abs(pixels.astype(int) - exact).mean()))
            median = {name: statistics.median(times) for name, times in seconds.items()}
            rates = {name: f"{1 / median[name]:,.0f} ({median['Pillow'] / median[name]:.2f}x)" for name in WAYS}
            cells = [f"{rates[name]}, {statistics.mean(distances[name]):.1f}" for name in WAYS]
            table.add_row(str(longer), str(side), *cells)
    Console(width=140).print(table)


def encoded(name: str, longer: int) -> bytes:
    """Return a photograph as JPEG with a longer side of so many pixels."""
    picture = Image.fromarray(getattr(skimage.data, name)()).convert("RGB")
    scale = longer / max(picture.size)
    out = io.BytesIO()
    picture.resize((round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS).save(
        out, "JPEG", quality=90
    )
    return out.getvalue()


def with_pillow(data: bytes, side: int) -> np.ndarray:
    """Return (side, side, 3) pixels as mm1 makes them."""
    picture = Image.open(io.BytesIO(data))
    picture.draft("RGB", (side, side))
    return np.asarray(picture.convert("RGB").resize((side, side), Image.Resampling.BICUBIC))


def with_simplejpeg(data: bytes, side: int) -> np.ndarray:
    """Return (side, side, 3) pixels: scaled by the decoder to the next eighth, the rest by Pillow."""
    pixels = simplejpeg.decode_jpeg(data, min_height=side, min_width=side)
    return np.asarray(Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC))


def with_vips(data: bytes, side: int) -> np.ndarray:
    """Return (side, side, 3) pixels by libvips alone."""
    return pyvips.Image.thumbnail_buffer(data, side, height=side, size="force").numpy()


WAYS: dict[str, Callable[[bytes, int], np.ndarray]] = {
    "Pillow": with_pillow,
    "simplejpeg": with_simplejpeg,
    "libvips": with_vips,
}

if __name__ == "__main__":
    main()
