"""What a model sees of a picture, on the terminal and as a page."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
import yaml
from PIL import Image as PILImage
from rich.console import Console
from typer.testing import CliRunner

from mm1.cli import app
from mm1.errors import UserError
from mm1.look.tiles import print_tiles, view_tiles, write_tiles
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe.schema import Overview


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    PILImage.new("RGB", (90, 40), "red").save(file)
    return file


def test_the_paper_by_default(picture: Path) -> None:
    result = CliRunner().invoke(app, ["show-tiles", str(picture)])
    assert result.exit_code == 0, result.output
    assert "90x40 px becomes 5 images (2x2 crops of 672 px), 720 tokens" in result.output
    assert re.search(r"5\s+row 2, column 2\s+x 672 to 1344, y 672 to 1344\s+144", result.output)


def test_options_lie_over_a_recipes_and_a_models_own(picture: Path, recipe_file: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(recipe_file.read_text())
    content["model"]["resolution"] = {"grid": "1x2"}
    recipe_file.write_text(yaml.safe_dump(content))
    result = CliRunner().invoke(app, ["show-tiles", str(picture), "--recipe", str(recipe_file)])
    assert "becomes 3 images (1x2 crops of 16 px), 12 tokens" in result.output
    result = CliRunner().invoke(app, ["show-tiles", str(picture), "--recipe", str(recipe_file), "--grid", "3x1"])
    assert "becomes 4 images (3x1 crops of 16 px), 16 tokens" in result.output
    rule = TilingRule(grid="2x2", overview="none")
    model = tmp_path / "model"
    build_processor(train_tokenizer(["so"], 300), 32, 9, resolution=rule).save_pretrained(model)
    (model / "config.json").write_text("{}")
    result = CliRunner().invoke(app, ["show-tiles", str(picture), "--model", str(model)])
    assert "becomes 4 images (2x2 crops of 32 px), 36 tokens" in result.output
    content["model"] = {"from": str(model), "vision": {"image_size": 64}}
    recipe_file.write_text(yaml.safe_dump(content))
    (model / "config.json").write_text('{"model_type": "mm1"}')
    result = CliRunner().invoke(app, ["show-tiles", str(picture), "--recipe", str(recipe_file)])
    assert "becomes 4 images (2x2 crops of 64 px), 36 tokens" in result.output


@pytest.mark.parametrize("arguments", [["--grid", "2by2"], ["--fit", "stretch"], ["--recipe", "demo", "--model", "x"]])
def test_impossible_options_are_one_sentence(picture: Path, arguments: list[str]) -> None:
    result = CliRunner().invoke(app, ["show-tiles", str(picture), *arguments])
    assert isinstance(result.exception, UserError)
    assert arguments[0] in str(result.exception)


@pytest.mark.parametrize(
    ("overview", "last"), [("first", "row 2, column 1"), ("last", "whole"), ("none", "row 2, col")]
)
def test_the_page_shows_every_image(picture: Path, tmp_path: Path, overview: Overview, last: str) -> None:
    rule = TilingRule(grid="2x1", overview=overview)
    view = view_tiles(picture, 32, 4, rule)
    page = tmp_path / "tiles.html"
    write_tiles(view, page)
    text = page.read_text()
    numbers = re.findall(r"<figcaption>(\d): ([\w ,]+), 4 tokens", text)
    assert [int(number) for number, _ in numbers] == list(range(1, len(view.tiling) + 1))
    assert numbers[-1][1].startswith(last)
    assert text.count("data:image/png;base64,") == len(view.tiling)


def test_a_file_that_is_no_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"x\.png: not a readable picture"):
        view_tiles(tmp_path / "x.png", 32, 4, TilingRule())


def test_one_image_says_by_how_much_it_shrinks(picture: Path) -> None:
    out = io.StringIO()
    print_tiles(view_tiles(picture, 45, 4, TilingRule()), Console(file=out, width=120))
    assert "becomes 1 image (45 px), 4 tokens; its longer side is scaled by 0.50" in out.getvalue()
