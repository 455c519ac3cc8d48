"""Sub-images, on examples worked out by hand, and what holds for every picture."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from mm1.processing.tiles import TilingRule, choose_grid, place, tile
from mm1.recipe import ResolutionRecipe
from mm1.recipe.schema import Overview

TWO_BY_TWO = TilingRule(grid="2x2")
DYNAMIC = TilingRule(grid="dynamic", overview="last", fit="pad", max_pictures=2)


def test_the_papers_example() -> None:
    """1344x1344 is an overview and four crops of 672 in reading order: five images, 5 x 144 = 720 tokens."""
    tiling = tile(1344, 1344, 672, TWO_BY_TWO)
    assert tiling.canvas == (1344, 1344)
    assert tiling.images == (
        None,
        (0, 0, 672, 672),
        (672, 0, 1344, 672),
        (0, 672, 672, 1344),
        (672, 672, 1344, 1344),
    )
    assert len(tiling) == 5
    assert len(tiling) * 144 == 720


def test_without_tiles_a_picture_is_one_image() -> None:
    tiling = tile(1000, 20, 336, TilingRule())
    assert tiling.images == (None,)
    assert tiling.overview_inner == (0, 0, 336, 336)


@pytest.mark.parametrize(("overview", "order"), [("first", [0, 1, 2]), ("last", [1, 2, 0]), ("none", [1, 2])])
def test_where_the_overview_stands(overview: Overview, order: list[int]) -> None:
    images = [None, (0, 0, 10, 10), (10, 0, 20, 10)]
    tiling = tile(7, 7, 10, TilingRule(grid="1x2", overview=overview))
    assert list(tiling.images) == [images[n] for n in order]
    assert len(tiling) == len(order)


def test_one_tile_is_the_overview_itself() -> None:
    assert tile(50, 50, 10, TilingRule(grid="1x1", overview="none")).images == (None,)


def test_other_grids_have_rows_first() -> None:
    tiling = tile(90, 60, 30, TilingRule(grid="2x3"))
    assert tiling.canvas == (90, 60)
    assert tiling.crops[1] == (30, 0, 60, 30)  # the second of the first row
    assert tiling.crops[3] == (0, 30, 30, 60)  # the first of the second


def test_padding_and_squashing() -> None:
    # 400x100 on 200x200: scaled by 200/400 to 200x50, (200 - 50) / 2 = 75 above.
    assert place(400, 100, 200, 200, "pad") == (0, 75, 200, 125)
    # 100x400: the same lying on its side.
    assert place(100, 400, 200, 200, "pad") == (75, 0, 125, 200)
    # 30x20 on 300x100: the height binds, scaled by 5 to 150x100, 75 at the left.
    assert place(30, 20, 300, 100, "pad") == (75, 0, 225, 100)
    assert place(400, 100, 200, 200, "squash") == (0, 0, 200, 200)
    # 1x1000 on 10x10: 0.01 pixels wide by rounding, 1 at least.
    assert place(1, 1000, 10, 10, "pad") == (4, 0, 5, 10)


class TestDynamicGrid:
    """Tiles of 100 pixels, 4 to 9 of them: the grids 1x4 to 1x9, 2x2 to 2x4, 3x2, 3x3, 4x1, 4x2, 5x1 to 9x1."""

    def test_a_square_that_fits(self) -> None:
        # 200x200: 2x2 holds it without padding; so does 3x3 (enlarged to 300x300); the fewer tiles win.
        assert choose_grid(200, 200, 100, 4, 9) == (2, 2)

    def test_the_least_padding(self) -> None:
        # 300x200 (3:2) in 2x3 (200 high, 300 wide): no padding. 2x4 holds it too: 80000 - 60000 = 20000 padded.
        # 3x3: enlarged to 300x200, 90000 - 60000 = 30000 padded.
        assert choose_grid(300, 200, 100, 4, 9) == (2, 3)

    def test_a_wide_one(self) -> None:
        # 380x100: 1x4 is 100x400; scale 1 (the height binds): 40000 - 38000 = 2000 padded.
        # 2x4: scale 400/380, 400 x 105.26 of 400 x 200: 80000 - 42105 padded. 1x5: 50000 - 38000.
        assert choose_grid(380, 100, 100, 4, 9) == (1, 4)

    def test_padding_counts_after_enlarging(self) -> None:
        # 150x150: 2x2 (scale 4/3) and 3x3 (scale 2) have no padding; 2x3 has 60000 - 40000. 2x2 has fewer tiles.
        assert choose_grid(150, 150, 100, 4, 9) == (2, 2)
        # 240x180 (4:3). 2x3 holds 266.7x200: 60000 - 53333 = 6667. 3x3 holds 300x225: 90000 - 67500 = 22500.
        # 2x4 holds 266.7x200: 80000 - 53333. 2x2 would make it smaller (200x150), so it is out.
        assert choose_grid(240, 180, 100, 4, 9) == (2, 3)

    def test_none_covers_least_loss(self) -> None:
        # 1000x1000: every grid shrinks it; scale is the shorter side / 1000: 3x3 gives 0.3, 2x4 and 4x2 give 0.2.
        assert choose_grid(1000, 1000, 100, 4, 9) == (3, 3)
        # 2000x250 (8:1): 1x9: min(100/250, 900/2000) = 0.4; 1x8: min(0.4, 0.4) = 0.4 without padding; 2x4: 0.2.
        assert choose_grid(2000, 250, 100, 4, 9) == (1, 8)
        # 250x2000 (1:8) likewise.
        assert choose_grid(250, 2000, 100, 4, 9) == (8, 1)

    def test_up_to_sixteen_in_use(self) -> None:
        # 1000x1000 with up to 16 tiles: 4x4 gives 0.4.
        assert choose_grid(1000, 1000, 100, 4, 16) == (4, 4)

    def test_tokens_of_the_largest_grid(self) -> None:
        """MM1.5: (9 + 1) x 144 = 1,440 tokens at most in training, (16 + 1) x 144 = 2,448 in use."""
        assert len(tile(5000, 5000, 672, DYNAMIC)) * 144 == 1440
        assert len(tile(5000, 5000, 672, replace(DYNAMIC, max_tiles=16))) * 144 == 2448


def test_a_picture_taken_whole_or_too_small() -> None:
    assert len(tile(1344, 1344, 672, TWO_BY_TWO, whole=True)) == 1
    small = TilingRule(grid="2x2", min_side=448)
    assert len(tile(447, 300, 672, small)) == 1
    assert len(tile(448, 300, 672, small)) == 5
    assert len(tile(1, 1, 672, TWO_BY_TWO)) == 5  # by itself the rule enlarges whatever there is


resolutions = st.builds(
    lambda grid, fit, overview, low, more: TilingRule(
        grid=grid, fit=fit, overview=overview, min_tiles=low, max_tiles=low + more
    ),
    st.sampled_from(["none", "1x2", "2x2", "3x2", "dynamic"]),
    st.sampled_from(["squash", "pad"]),
    st.sampled_from(["first", "last", "none"]),
    st.integers(1, 6),
    st.integers(0, 10),
)


@given(st.integers(1, 5000), st.floats(1 / 8, 8), st.integers(8, 700), resolutions)
def test_crops_cover_the_picture_once(width: int, ratio: float, size: int, resolution: TilingRule) -> None:
    height = max(1, round(width * ratio))
    tiling = tile(width, height, size, resolution)
    columns, rows = tiling.canvas
    left, top, right, bottom = tiling.inner
    assert 0 <= left < right <= columns
    assert 0 <= top < bottom <= rows
    area = sum((r - x) * (b - y) for x, y, r, b in tiling.crops)
    assert area == (columns * rows if tiling.crops else 0)
    assert len(set(tiling.crops)) == len(tiling.crops)
    assert all((r - x, b - y) == (size, size) and r <= columns and b <= rows for x, y, r, b in tiling.crops)
    assert len(tiling.images) == len(tiling)
    if resolution.grid == "dynamic":
        assert resolution.min_tiles <= tiling.rows * tiling.columns <= resolution.max_tiles
    if resolution.fit == "pad":  # one side is filled, and the shape is kept to within a pixel
        assert right - left == columns or bottom - top == rows
        scale = min(columns / width, rows / height)
        assert abs((right - left) - width * scale) <= 1
        assert abs((bottom - top) - height * scale) <= 1


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 4), st.integers(0, 8))
def test_no_grid_is_better_than_the_chosen_one(width: int, height: int, low: int, more: int) -> None:
    """Against the rule written out over all grids."""
    size, high = 100, low + more
    rows, columns = choose_grid(width, height, size, low, high)

    def held(r: int, c: int) -> float:
        return min(r * size / height, c * size / width)

    grids = [(r, c) for r in range(1, high + 1) for c in range(1, high + 1) if low <= r * c <= high]
    assert (rows, columns) in grids
    covering = [g for g in grids if held(*g) >= 1]
    if covering:
        padding = [g[0] * g[1] * size**2 - held(*g) ** 2 * width * height for g in covering]
        mine = rows * columns * size**2 - held(rows, columns) ** 2 * width * height
        assert held(rows, columns) >= 1 - 1e-12
        assert mine <= min(padding) + 1e-6
    else:
        assert held(rows, columns) >= max(held(*g) for g in grids) - 1e-12


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"grid": "0x2"}, "ROWSxCOLUMNS"), ({"grid": "big"}, "ROWSxCOLUMNS"), ({"min_tiles": 10}, "min_tiles 10")],
)
def test_impossible_settings(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ResolutionRecipe.model_validate(settings)
