"""Random crops: inside the picture, of the asked shares, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as PILImage

from mm1.encoder.augment import augment, crop_box

SIDES = st.integers(1, 300)


@given(width=SIDES, height=SIDES, low=st.floats(0.05, 1), seed=st.integers(0, 99))
def test_a_crop_is_inside_and_not_empty(width: int, height: int, low: float, seed: int) -> None:
    left, top, right, bottom = crop_box(width, height, (low, 1.0), (0.75, 4 / 3), np.random.default_rng(seed))
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_areas_and_ratios_are_those_asked_for() -> None:
    random = np.random.default_rng(0)
    boxes = np.array([crop_box(400, 400, (0.3, 0.5), (0.75, 4 / 3), random) for _ in range(2000)])
    widths, heights = boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1]
    areas = widths * heights / 400**2
    assert areas.min() == pytest.approx(0.3, abs=0.01)
    assert areas.max() == pytest.approx(0.5, abs=0.01)
    assert areas.mean() == pytest.approx(0.4, abs=0.01)
    assert (widths / heights).min() == pytest.approx(0.75, abs=0.02)
    assert (widths / heights).max() == pytest.approx(4 / 3, abs=0.02)
    assert np.log(widths / heights).mean() == pytest.approx(0, abs=0.02)


def test_a_picture_too_narrow_for_any_crop_keeps_its_middle() -> None:
    assert crop_box(300, 30, (0.9, 1.0), (0.75, 4 / 3), np.random.default_rng(0)) == (130, 0, 170, 30)


def test_without_crop_and_mirror_it_is_the_resized_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    image = PILImage.fromarray(pixels)
    same = augment(image, 8, (1.0, 1.0), (0.75, 4 / 3), 0.0, np.random.default_rng(0))
    assert (same == pixels.transpose(2, 0, 1)).all()
    mirrored = augment(image, 8, (1.0, 1.0), (0.75, 4 / 3), 1.0, np.random.default_rng(0))
    assert (mirrored == pixels[:, ::-1].transpose(2, 0, 1)).all()


def test_chance_follows_the_seed() -> None:
    image = PILImage.fromarray(np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8))

    def drawn(seed: int) -> np.ndarray:
        return augment(image, 16, (0.2, 1.0), (0.75, 4 / 3), 0.5, np.random.default_rng(seed))

    assert (drawn(1) == drawn(1)).all()
    assert (drawn(1) != drawn(2)).any()
