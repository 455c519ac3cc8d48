import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PILImage
from rich.console import Console

from mm1.data.corpus import write_corpus
from mm1.document import Image
from mm1.errors import UserError
from mm1.evaluate.compare import answer_likelihoods
from mm1.evaluate.evaluate_model import evaluate_model
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.score_table import score_table
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.task_table import task_table
from mm1.evaluate.tasks.task import Task

from ..train.forked import on_ranks
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
    settings = EvaluationSettings(**options)
    return evaluate_model(generator, tasks, settings, out_dir=out_dir, model_name="tiny", model_hash="0")


class Oracle:
    """Answers by looking the prompt's last picture up: a model that is always right."""

    max_context = 60
    takes_turns = False
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
    assert first["id"] == f"test/{first['corpus_row']}"
    assert first["prompt"].count("<image>") == 3
    assert len(first["shot_ids"]) == 2
    assert [list(part) for part in saved["example_prompt"]].count(["image"]) == 3
    assert not list((tmp_path / "scores").glob(".*"))
    assert sorted(file.suffix for file in (tmp_path / "scores").iterdir()) == [".html", ".html", ".json", ".json"]


def test_shots_share_the_field_and_nest(squares, tmp_path):
    results = run(Oracle("test", 20), tmp_path, task(), shots=(2, 5))
    for few, many in zip(results[0]["predictions"], results[1]["predictions"], strict=True):
        assert many["shot_ids"][:2] == few["shot_ids"]
        halves = {int(shot.split("/")[1]) % 2 for shot in many["shot_ids"]}
        assert halves == {int(many["id"].split("/")[1]) % 2}


def test_text_only_shots_are_an_option_and_no_default(squares, tmp_path):
    flamingo = task(name="flamingo", shots={"corpus": "squares/shots", "text_only_at_zero": 2})
    plain, option = run(Oracle("test", 20), tmp_path, task(), flamingo, shots=(0,))
    assert {p["prompt"].count("Question:") for p in plain["predictions"]} == {1}
    assert {p["prompt"].count("Question:") for p in option["predictions"]} == {3}
    assert {p["prompt"].count("<image>") for p in option["predictions"]} == {1}
    assert (plain["protocol"]["text_only_shots"], option["protocol"]["text_only_shots"]) == (0, 2)
    (some,) = run(Oracle("test", 20), tmp_path, flamingo, shots=(2,))
    assert {p["prompt"].count("<image>") for p in some["predictions"]} == {3}


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


def test_more_draws_are_kept_and_fewer_are_not(squares, tmp_path):
    oracle = Oracle("test", 20)
    (three,) = run(oracle, tmp_path, task(), shots=(2,), draws=3)
    before = oracle.calls
    assert run(oracle, tmp_path, task(), shots=(2,)) == [three]
    assert oracle.calls == before
    (four,) = run(oracle, tmp_path, task(), shots=(2,), draws=4)
    assert len(four["draws"]) == 4
    (other,) = run(oracle, tmp_path, task(), shots=(2,), seed=1)
    assert [draw["seed"] for draw in other["draws"]] == [1]


def _slowly(data: str, out_dir: str) -> None:
    class Slow(Oracle):
        def generate(self, prompts, **options):
            time.sleep(0.5)
            with open(f"{out_dir}/calls", "a") as calls:
                calls.write(".")
            return super().generate(prompts, **options)

    os.environ["MM1_DATA"] = data
    (result,) = run(Slow("test", 20), Path(out_dir), task(), shots=(2,))
    assert result["score"] == 1.0


def test_two_processes_share_one_result(squares, tmp_path):
    """The later one waits for the earlier one, and keeps its result."""
    on_ranks(2, _slowly, str(squares), str(tmp_path))
    assert len((tmp_path / "calls").read_text()) == 2  # the queries, and those with swapped pictures


def test_a_damaged_picture_counts_as_an_error(squares, tmp_path, model, processor):
    documents = [question("test", n) for n in range(6)]
    documents[2] = question("test", 2, Image(b"not a picture"))
    write_corpus(squares / "spoilt", {"test": documents}, licence="-", sources=["-"])
    spoilt = task(data={"corpus": "spoilt/test", "answers": "answer"})
    (result,) = run(MM1Generator(model, processor), tmp_path, spoilt, shots=(1,))
    assert (result["items"], result["errors"]) == (6, 1)
    (spoilt_one,) = [p for p in result["predictions"] if p["corpus_row"] == 2]
    assert spoilt_one["prediction"] is None
    assert "not a readable picture" in spoilt_one["error"]
    assert spoilt_one["score"] == 0.0


def test_pool_smaller_than_the_shots(squares, tmp_path):
    with pytest.raises(
        UserError, match=r"needs 20 shots, and squares/shots has only 15 items .* half '\d': use at most 15 shots"
    ):
        run(Oracle("test", 20), tmp_path, task(), shots=(20,))
    assert not list(tmp_path.glob("*.json"))


def test_context_too_short_says_how_many_fit(squares, tmp_path, model, processor):
    generator = MM1Generator(model, processor)
    room = generator.model.config.get_text_config().max_position_embeddings
    generator.model.config.get_text_config().max_position_embeddings = 100
    try:
        with pytest.raises(
            UserError, match=r"'test/\d+' with 15 shots needs \d+ tokens, and the model takes 100: [1-4] shots fit"
        ):
            run(generator, tmp_path, task(), shots=(15,))
    finally:
        generator.model.config.get_text_config().max_position_embeddings = room


def test_missing_answers_name_the_fields_there(squares, tmp_path):
    wrong = task(data={"corpus": "squares/test", "answers": "truth"})
    with pytest.raises(UserError, match=r"no field 'truth' for its answers: name one of answer, color, half, question"):
        run(Oracle("test", 20), tmp_path, wrong, shots=(0,))


def test_table_shows_scores_and_floors(squares, tmp_path):
    results = run(Oracle("test", 20), tmp_path, task(), shots=(0, 2))
    console = Console(width=120)
    with console.capture() as captured:
        console.print(score_table(results))
    text = captured.get()
    assert "100.0 ±0.0" in text
    assert "swapped pictures" in text
    assert "2-shot" in text


class Interrupted(Exception):
    pass


def test_a_stopped_evaluation_goes_on_where_it_was(squares, tmp_path, monkeypatch):
    monkeypatch.setattr("mm1.evaluate.scoring.PART", 6)
    monkeypatch.setattr("mm1.evaluate.evaluate_model.PARTS_AT_ONCE", 1)
    whole = Oracle("test", 20)
    (expected,) = run(whole, tmp_path / "whole", task(), shots=(2,))
    stopped = Oracle("test", 20)

    def interrupt(prompts, **options):
        if stopped.calls == 5:  # two parts of two calls each are done, the third is begun
            raise Interrupted
        return Oracle.generate(stopped, prompts, **options)

    monkeypatch.setattr(stopped, "generate", interrupt)
    with pytest.raises(Interrupted):
        run(stopped, tmp_path / "again", task(), shots=(2,))
    assert not list((tmp_path / "again").glob("*.json"))
    fresh = Oracle("test", 20)
    (result,) = run(fresh, tmp_path / "again", task(), shots=(2,))
    assert fresh.calls == whole.calls - 4
    assert result == expected
    assert not (tmp_path / "again" / ".parts").exists()


def test_swapped_pictures_are_scored_on_a_sample_of_many_items(squares, tmp_path, monkeypatch):
    monkeypatch.setattr("mm1.evaluate.scoring.PART", 6)
    monkeypatch.setattr("mm1.evaluate.scoring.FLOOR_ITEMS", 7)
    (result,) = run(Oracle("test", 20), tmp_path, task(), shots=(0,))
    assert result["floors"]["swapped pictures"]["items"] == 10  # two parts of five
    assert result["score"] == 1.0


def test_parts_answered_together_or_apart_give_the_same(squares, tmp_path, monkeypatch, model, processor):
    monkeypatch.setattr("mm1.evaluate.scoring.PART", 6)
    results = []
    for at_once in (1, 3, 16):
        monkeypatch.setattr("mm1.evaluate.evaluate_model.PARTS_AT_ONCE", at_once)
        results += run(MM1Generator(model, processor), tmp_path / str(at_once), task(), shots=(2,))
    assert results[0] == results[1] == results[2]
    assert [p["id"] for p in results[0]["predictions"] if "image" in p] == [p["id"] for p in results[0]["predictions"]]


def test_several_draws_give_the_mean_of_their_scores(squares, tmp_path, model, processor):
    (result,) = run(MM1Generator(model, processor), tmp_path, task(floors=[]), shots=(2,), draws=3)
    assert [draw["seed"] for draw in result["draws"]] == [0, 1, 2]
    assert result["score"] == pytest.approx(sum(draw["score"] for draw in result["draws"]) / 3)
    console = Console(width=120)
    with console.capture() as captured:
        console.print(score_table([result]))
    scores = [100 * draw["score"] for draw in result["draws"]]
    assert f"{min(scores):.1f} to {max(scores):.1f}" in captured.get()
    first = result["predictions"][0]
    assert len(first["other_draws"]) == 2
    assert len({tuple(draw["shot_ids"]) for draw in [first, *first["other_draws"]]}) > 1
    (none,) = run(MM1Generator(model, processor), tmp_path, task(floors=[]), shots=(0,), draws=3)
    assert len(none["draws"]) == 1


def test_nearest_shots_show_the_query_s_colour_last(squares, tmp_path):
    class Seeing(Oracle):
        def embed(self, images):
            pixels = [np.asarray(PILImage.open(io.BytesIO(image.data)), dtype=np.float32) for image in images]
            means = np.stack([p.reshape(-1, 3).mean(axis=0) for p in pixels])
            return means / np.linalg.norm(means, axis=1, keepdims=True)

    near = task(shots={"corpus": "squares/shots", "selection": "nearest"})
    (result,) = run(Seeing("test", 20), tmp_path, near, shots=(3,))
    for prediction in result["predictions"]:
        colour = int(prediction["id"].split("/")[1]) % 4
        assert [int(shot.split("/")[1]) % 4 for shot in prediction["shot_ids"]] == [colour] * 3


def test_nearest_shots_need_a_model_that_embeds(squares, tmp_path):
    near = task(shots={"corpus": "squares/shots", "selection": "nearest"})
    with pytest.raises(UserError, match="nearest shots need a model that embeds pictures"):
        run(Oracle("test", 20), tmp_path, near, shots=(3,))


def _rank(data: str, out_dir: str) -> None:
    os.environ["MM1_DATA"] = data
    from mm1.evaluate import distributed, scoring

    scoring.PART = 6
    distributed.join_ranks()
    (result,) = run(Oracle("test", 20), Path(out_dir), task(), shots=(2,))
    assert result["items"] == 20


def test_two_ranks_give_the_result_of_one(squares, tmp_path, monkeypatch):
    monkeypatch.setattr("mm1.evaluate.scoring.PART", 6)
    (expected,) = run(Oracle("test", 20), tmp_path / "one", task(), shots=(2,))
    on_ranks(2, _rank, str(squares), str(tmp_path / "two"))
    assert json.loads((tmp_path / "two" / "squares.2-shot.json").read_text()) == expected


def test_task_table_names_every_task_and_its_data():
    console = Console(width=250)
    with console.capture() as captured:
        console.print(task_table())
    assert "easy-vqa/test" in captured.get()
    assert "Hub: lmms-lab-encoder/VQAv2/validation" in captured.get()


def test_the_likelihood_of_the_right_answer_is_asked_for_beside_the_score(squares, tmp_path, model, processor):
    generator = MM1Generator(model, processor)
    plain = run(generator, tmp_path / "plain", task(), shots=(1,), limit=4)[0]
    asked = run(generator, tmp_path / "asked", task(), shots=(1,), limit=4, right_answers=True)[0]
    assert "right_answer" not in plain
    assert answer_likelihoods(plain) is None
    assert asked["score"] == plain["score"]
    assert [p["prediction"] for p in asked["predictions"]] == [p["prediction"] for p in plain["predictions"]]
    values = answer_likelihoods(asked)
    assert values is not None
    assert values.shape == (1, 4, 1)
    assert asked["right_answer"]["log_likelihood"] == pytest.approx(values.mean())
    assert (values < 0).all()
    assert "right answer's log-likelihood" in shown_table(score_table([asked]))


def shown_table(table) -> str:
    console = Console(width=200)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
