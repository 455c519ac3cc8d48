import json
from pathlib import Path

import pytest
from rich.console import Console

from mm1.data.corpus import write_corpus
from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.generation import MM1Generator
from mm1.evaluate.runner import evaluate
from mm1.evaluate.table import score_table
from mm1.evaluate.task import Task

from .conftest import question

BASE = {
    "name": "squares",
    "description": "Questions on squares.",
    "data": {"corpus": "squares/test", "answers": "answer"},
    "prompt": "{image} Question: {question} Short answer:",
    "shots": {"corpus": "squares/shots", "same": "half"},
    "max_new_tokens": 4,
    "metric": "accuracy",
    "also": ["exact_match"],
    "floors": ["majority", "swapped pictures"],
}


def task(**changes: object) -> Task:
    return Task.model_validate({**BASE, **changes})


def run(generator, out_dir: Path, *tasks: Task, **options):
    return evaluate(generator, tasks, out_dir=out_dir, model_name="tiny", model_hash="0", **options)


class Oracle:
    """Answers by looking the prompt's last picture up: a model that is always right."""

    max_context = 60
    calls = 0

    def __init__(self, split: str, count: int) -> None:
        documents = [question(split, n) for n in range(count)]
        self._answers = {(d.images[0], d.parts[1]): str(d.meta["answer"]) for d in documents}

    def count_tokens(self, prompt):
        return 10 * len(prompt.images)

    def generate(self, prompts, *, max_new_tokens, stop, advance=None):
        self.calls += 1
        return [self._answers.get((p.images[-1], p.parts[-1]), "wrong") for p in prompts]


def test_result_says_everything(squares, tmp_path, model, processor):
    results = run(MM1Generator(model, processor), tmp_path / "scores", task(), shots=(0, 2))
    assert [result["shots"] for result in results] == [0, 2]
    saved = json.loads((tmp_path / "scores" / "squares.2-shot.json").read_text())
    assert saved == json.loads(json.dumps(results[1]))
    assert saved["items"] == 20 == len(saved["predictions"])
    assert saved["errors"] == 0
    assert saved["score"] == pytest.approx(sum(p["score"] for p in saved["predictions"]) / 20)
    assert saved["interval"][0] <= saved["score"] <= saved["interval"][1]
    assert set(saved["floors"]) == {"majority", "swapped pictures"}
    first = saved["predictions"][0]
    assert first["corpus_row"] == 0
    assert first["prompt"].count("<image>") == 3
    assert len(first["shot_ids"]) == 2
    assert [list(part) for part in saved["example_prompt"]].count(["image"]) == 3
    assert not list((tmp_path / "scores").glob(".*"))


def test_shots_share_the_field_and_nest(squares, tmp_path):
    results = run(Oracle("test", 20), tmp_path, task(), shots=(2, 5))
    for few, many in zip(results[0]["predictions"], results[1]["predictions"], strict=True):
        assert many["shot_ids"][:2] == few["shot_ids"]
        halves = {int(shot.split("/")[1]) % 2 for shot in many["shot_ids"]}
        assert halves == {int(many["id"].split("/")[1]) % 2}


def test_a_query_is_never_its_own_shot(squares, tmp_path):
    own = task(shots={"sets": 2})
    (result,) = run(Oracle("test", 20), tmp_path, own, shots=(8,))
    assert all(p["id"] not in p["shot_ids"] for p in result["predictions"])
    drawn = {tuple(p["shot_ids"]) for p in result["predictions"]}
    assert len(drawn) < 20


def test_who_sees_scores_one_and_falls_to_nothing_when_pictures_are_swapped(squares, tmp_path):
    (result,) = run(Oracle("test", 20), tmp_path, task(), shots=(0,))
    assert result["score"] == 1.0
    assert result["also"]["exact_match"]["score"] == 1.0
    assert result["floors"]["swapped pictures"]["score"] < 0.5
    assert 0.0 < result["floors"]["majority"]["score"] < 1.0


def test_limit_is_a_seeded_choice_and_scores_stay_the_same_item_by_item(squares, tmp_path):
    (few,) = run(Oracle("test", 20), tmp_path / "a", task(), shots=(2,), limit=6)
    (every,) = run(Oracle("test", 20), tmp_path / "b", task(), shots=(2,))
    whole = {p["id"]: p for p in every["predictions"]}
    assert len(few["predictions"]) == 6
    assert all(whole[p["id"]] == p for p in few["predictions"])


def test_a_finished_result_is_kept_unless_the_protocol_changed(squares, tmp_path):
    oracle = Oracle("test", 20)
    run(oracle, tmp_path, task(), shots=(0, 2))
    before = oracle.calls
    run(oracle, tmp_path, task(), shots=(0, 2))
    assert oracle.calls == before
    run(oracle, tmp_path, task(max_new_tokens=5), shots=(0,))
    assert oracle.calls == before + 2


def test_a_damaged_picture_counts_as_an_error(squares, tmp_path, model, processor):
    documents = [question("test", n) for n in range(6)]
    documents[2] = question("test", 2, Image(b"not a picture"))
    write_corpus(squares / "spoilt", {"test": documents}, licence="-", sources=["-"])
    spoilt = task(data={"corpus": "spoilt/test", "answers": "answer"})
    (result,) = run(MM1Generator(model, processor), tmp_path, spoilt, shots=(1,))
    assert (result["items"], result["errors"]) == (6, 1)
    assert result["predictions"][2]["prediction"] is None
    assert "not a readable picture" in result["predictions"][2]["error"]
    assert result["predictions"][2]["score"] == 0.0


def test_pool_smaller_than_the_shots(squares, tmp_path):
    with pytest.raises(
        UserError, match=r"20 shots are asked for, and squares/shots has 15 .* half '\d': ask for at most 15"
    ):
        run(Oracle("test", 20), tmp_path, task(), shots=(20,))
    assert not list(tmp_path.glob("*.json"))


def test_context_too_short_says_how_many_fit(squares, tmp_path, model, processor):
    generator = MM1Generator(model, processor)
    room = generator.model.config.get_text_config().max_position_embeddings
    generator.model.config.get_text_config().max_position_embeddings = 100
    try:
        with pytest.raises(
            UserError, match=r"15 shots need \d+ tokens for 'test/\d+' and the model takes 100: [1-4] shots fit"
        ):
            run(generator, tmp_path, task(), shots=(15,))
    finally:
        generator.model.config.get_text_config().max_position_embeddings = room


def test_missing_answers_name_the_fields_there(squares, tmp_path):
    wrong = task(data={"corpus": "squares/test", "answers": "truth"})
    with pytest.raises(UserError, match=r"no field 'truth' for its answers: it has answer, color, half, question"):
        run(Oracle("test", 20), tmp_path, wrong, shots=(0,))


def test_table_shows_scores_and_floors(squares, tmp_path):
    results = run(Oracle("test", 20), tmp_path, task(), shots=(0, 2))
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(score_table(results))
    text = console.export_text()
    assert "100.0 (100.0 to 100.0)" in text
    assert "swapped pictures" in text
    assert "2-shot" in text
