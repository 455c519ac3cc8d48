import base64
import re

from mm1.evaluate.models.mm1 import MM1Generator

from .conftest import question
from .test_evaluate_model import Oracle, run, task


def test_page_shows_pictures_shots_words_and_truth(squares, tmp_path, model, processor):
    run(MM1Generator(model, processor), tmp_path, task(), shots=(2,))
    page = (tmp_path / "squares.2-shot.html").read_text()
    assert page.count("<article") == 20
    first = question("test", 3).images[0].read()
    assert base64.b64encode(first).decode() in page
    assert page.count('role="img"') == 60
    assert "what color is it?" in page
    assert not re.search(r'(src|href)="http', page)
    assert not list(tmp_path.glob(".squares*"))


def test_words_of_the_model_are_text_not_markup(squares, tmp_path):
    class Script(Oracle):
        def generate(self, prompts, **options):
            return ["<script>alert(1)</script>" for _ in prompts]

    run(Script("test", 20), tmp_path, task(), shots=(0,))
    page = (tmp_path / "squares.0-shot.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page


def test_the_first_predictions_keep_their_picture(squares, tmp_path):
    (result,) = run(Oracle("test", 20), tmp_path, task(), shots=(0,))
    assert all(base64.b64decode(p["image"]).startswith(b"\x89PNG") for p in result["predictions"])
