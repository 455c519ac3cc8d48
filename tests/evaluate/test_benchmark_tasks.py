"""The shipped benchmark tasks on small local files with the columns of the Hub data sets they name.

The columns were checked against lmms-eval 0.7.3 and lm-evaluation-harness 0.4.13, which read the same data sets.
"""

from typing import Any

import pytest

from mm1.errors import UserError
from mm1.evaluate.compare import compare_runs
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import IdTable, load_task, packaged_tasks

from .test_evaluate_model import run
from .test_tables import pictures, write_parquet

FILE_NAMES = [f"COCO_val2014_00000000000{n}.jpg" for n in range(3)]
TEN = ["red"] * 9 + ["pink"]
DICTS = [{"answer": answer, "answer_id": n, "answer_confidence": "yes"} for n, answer in enumerate(TEN)]
CAPTIONS = ["A red square.", "A square on white."]
QUESTION = {"question": ["What color?"] * 3, "question_id": ["q0", "q1", "q2"]}
CAPTION_PROMPT = "<image> A photo of A red square.\n<image> A photo of"
VQA_PROMPT = "<image> Question: What color? Short answer: red\n<image> Question: What color? Short answer:"
OPTIONS = "Question: What color?\nA. red\nB. blue\nAnswer:"
CHOICE_PROMPT = f"<image> {OPTIONS} B\n<image> {OPTIONS}"

# task: (columns besides `image`, prompt of one shot, a right answer)
SCHEMAS: dict[str, tuple[dict[str, list[Any]], str, str]] = {
    "coco": ({**QUESTION, "file_name": FILE_NAMES, "answer": [CAPTIONS] * 3}, CAPTION_PROMPT, CAPTIONS[0]),
    "nocaps": ({"image_id": [1, 2, 3], "annotations_captions": [CAPTIONS] * 3}, CAPTION_PROMPT, CAPTIONS[0]),
    "textcaps": ({"image_id": ["a", "b", "c"], "caption_str": [CAPTIONS] * 3}, CAPTION_PROMPT, CAPTIONS[0]),
    "vqav2": ({**QUESTION, "answers": [DICTS] * 3}, VQA_PROMPT, "red"),
    "textvqa": ({**QUESTION, "answers": [TEN] * 3}, VQA_PROMPT, "red"),
    "vizwiz": ({**QUESTION, "answers": [TEN] * 3}, VQA_PROMPT, "red"),
    "ok-vqa": ({**QUESTION, "answers": [TEN] * 3}, VQA_PROMPT, "red"),
    "pope": ({**QUESTION, "answer": ["yes"] * 3}, VQA_PROMPT.replace(" red", " yes"), "Yes"),
    "scienceqa-img": (
        {**QUESTION, "choices": [["red", "blue"]] * 3, "answer": [1] * 3, "hint": [""] * 3},
        CHOICE_PROMPT,
        "B",
    ),
    "seed": (
        {
            **QUESTION,
            "choice_a": ["red"] * 3,
            "choice_b": ["blue"] * 3,
            "choice_c": [None] * 3,
            "choice_d": [None] * 3,
            "answer": ["B"] * 3,
        },
        CHOICE_PROMPT,
        "B. blue",
    ),
}
OWN = {
    "tuxpaint-caption",
    "skimage-caption",
    "easy-vqa",
    "scenes-caption",
    "scenes-questions",
    "pages",
    "pages-plain",
    "rounds",
    "find",
    "text-continuation",
}
HANDS = {name for name in packaged_tasks() if name.startswith("hands-")}  # tests/corpora/test_hands.py
APART = {"gqa", "mmmu", "mmbench", "mathvista"}
TEXT = {"arc-easy", "arc-challenge", "piqa", "hellaswag", "sciq", "winogrande", "lambada", "triviaqa", "webqs"}


def localized(task, file, **more):
    update = {"hub": None, "name": None, "split": None, "file": file, **more}
    shots = task.shots.model_copy(update={"split": None, "name": None})
    return task.model_copy(update={"data": task.data.model_copy(update=update), "shots": shots})


class Says:
    """Gives each prompt the answer of the row that its text names."""

    max_context = 1000
    takes_turns = False

    def __init__(self, answers):
        self._answers = answers

    def count_tokens(self, prompt):
        return 1

    def generate(self, prompts, *, max_new_tokens, stop, advance=None):
        texts = [as_text(prompt) for prompt in prompts]
        return [next(answer for mark, answer in self._answers.items() if mark in text) for text in texts]


def test_every_shipped_benchmark_is_tested():
    assert set(packaged_tasks()) == set(SCHEMAS) | OWN | HANDS | APART | TEXT


@pytest.mark.parametrize("name", SCHEMAS)
def test_prompt_and_metric(name, tmp_path):
    columns, expected, right = SCHEMAS[name]
    file = write_parquet(tmp_path / f"{name}.parquet", {"image": pictures(3), **columns})
    task = localized(load_task(name), file, only=None)
    items = [open_items(task.data)[row] for row in range(3)]
    assert as_text(build_prompt(task, items[1], [items[0]])) == expected
    metric = METRICS[task.metric]
    references = [item.answers for item in items]
    if task.metric == "cider":
        references[1] = ("a dog",)  # with the same captions everywhere no word would tell anything
    good = metric.statistics([right] * 3, references)[0]
    bad = metric.statistics(["zebra"] * 3, references)[0]
    assert good[0] > bad[0] == 0.0


def test_gqa_joins_its_pictures(tmp_path):
    images = write_parquet(tmp_path / "images.parquet", {"id": ["n1", "n2"], "image": pictures(2)})
    columns = {"question": ["What color?"] * 3, "answer": ["red"] * 3, "imageId": ["n2", "n1", "n2"]}
    file = write_parquet(tmp_path / "gqa.parquet", columns, ())
    task = load_task("gqa")
    assert task.data.pictures is not None
    pictures_source = task.data.pictures.model_copy(update={"file": images, "name": None})
    task = localized(task, file, pictures=pictures_source)
    items = open_items(task.data)
    assert items[0].images == items[2].images != items[1].images
    assert as_text(build_prompt(task, items[0], [items[1]])) == VQA_PROMPT


def test_mmmu_sets_its_pictures_into_the_question(tmp_path):
    columns = {f"image_{n}": pictures(1) if n == 1 else [None] for n in range(1, 8)}
    columns |= {"id": ["v1"], "question": ["What color is <image 1>?"], "options": ["['red', 'blue']"]}
    columns |= {"question_type": ["multiple-choice"], "answer": ["B"]}
    names = tuple(f"image_{n}" for n in range(1, 8))
    task = localized(load_task("mmmu"), write_parquet(tmp_path / "m.parquet", columns, names))
    (item,) = [open_items(task.data)[0]]
    expected = "Question: What color is <image>?\nA. red\nB. blue\nAnswer:"
    assert as_text(build_prompt(task, item)) == expected


def test_coco_is_karpathys_test_split_and_draws_from_his_validation_split(tmp_path):
    columns = {"file_name": [f"{n}.jpg" for n in range(6)], "answer": [CAPTIONS] * 6, "image": pictures(6)}
    file = write_parquet(tmp_path / "val.parquet", columns)
    splits = {}
    for name, rows in (("test", (0, 4)), ("validation", (1, 2, 5))):
        table = {"filename": [f"{n}.jpg" for n in rows], "sentences": [CAPTIONS] * len(rows)}
        splits[name] = write_parquet(tmp_path / f"{name}.parquet", table, ())
    task = load_task("coco")
    assert isinstance(task.data.only, IdTable)
    assert isinstance(task.shots.only, IdTable)
    assert (task.data.only.split, task.shots.only.split) == ("test", "validation")
    only = {"hub": None, "split": None}
    own = task.shots.only.model_copy(update={**only, "file": splits["validation"]})
    task = localized(task, file, only=task.data.only.model_copy(update={**only, "file": splits["test"]}))
    task = task.model_copy(update={"shots": task.shots.model_copy(update={"only": own}), "floors": []})
    (result,) = run(Says({"": "A red square."}), tmp_path / "scores", task, shots=(3,))
    assert sorted(p["id"] for p in result["predictions"]) == ["0.jpg", "4.jpg"]
    assert {shot for p in result["predictions"] for shot in p["shot_ids"]} == {"1.jpg", "2.jpg", "5.jpg"}
    with pytest.raises(UserError, match="it needs 4 shots, and .* has only 3 items"):
        run(Says({"": ""}), tmp_path / "more", task, shots=(4,))
    other = {"filename": ["1.jpg", "2.jpg", "3.jpg"], "sentences": [CAPTIONS] * 3}
    write_parquet(tmp_path / "validation.parquet", other, ())  # other shots: the result there is not kept
    (again,) = run(Says({"": "A red square."}), tmp_path / "scores", task, shots=(3,))
    assert {shot for p in again["predictions"] for shot in p["shot_ids"]} == {"1.jpg", "2.jpg", "3.jpg"}
    wrong = task.data.only.model_copy(update={"column": "file"})
    with pytest.raises(UserError, match=r"no column 'file': did you mean filename"):
        run(Says({"": ""}), tmp_path / "wrong", localized(task, file, only=wrong), shots=(0,))


def mmbench(tmp_path):
    """Two questions, the first in three circular orders, the second in two."""
    columns = {
        "index": [7, 1_000_007, 2_000_007, 9, 1_000_009],
        "question": ["what 7a?", "what 7b?", "what 7c?", "what 9a?", "what 9b?"],
        "hint": ["Look closely.", "Look closely.", "Look closely.", "nan", None],
        "A": ["red", "blue", "teal", "yes", "no"],
        "B": ["blue", "teal", "red", "no", "yes"],
        "C": ["teal", "red", "blue", "nan", "nan"],
        "D": ["nan"] * 5,
        "answer": ["A", "C", "B", "B", "A"],
        "image": [*pictures(1) * 3, *pictures(2)[1:] * 2],
    }
    return localized(load_task("mmbench"), write_parquet(tmp_path / "mmbench.parquet", columns))


def test_mmbench_counts_a_question_if_it_is_right_in_every_circular_order(tmp_path, monkeypatch):
    task = mmbench(tmp_path)
    right = {"7a?": "A", "7b?": "(C)", "7c?": "red", "9a?": "B", "9b?": "A. no"}
    (every,) = run(Says(right), tmp_path / "every", task, shots=(0,))
    assert (every["score"], every["items"], len(every["predictions"])) == (1.0, 2, 5)
    first = next(p for p in every["predictions"] if p["id"] == "7")
    assert first["prompt"] == "<image> Question: Look closely. what 7a?\nA. red\nB. blue\nC. teal\nAnswer:"
    (some,) = run(Says({**right, "7c?": "A"}), tmp_path / "some", task, shots=(0,))
    assert (some["score"], some["items"]) == (0.5, 2)
    assert [p["score"] for p in some["predictions"] if p["together"] == "7"] == [1.0, 1.0, 0.0]
    (row,) = compare_runs(tmp_path / "some", tmp_path / "every")
    assert (row.first, row.second, row.items) == (0.5, 1.0, 2)
    (shot,) = run(Says(right), tmp_path / "shot", task, shots=(1,))
    for p in shot["predictions"]:  # never another order of the same question
        assert int(p["id"]) % 1_000_000 != int(p["shot_ids"][0]) % 1_000_000
    monkeypatch.setattr("mm1.evaluate.scoring.PART", 2)  # a question with all its orders is in one part, none is empty
    (parts,) = run(Says(right), tmp_path / "parts", task, shots=(0,))
    assert (parts["score"], parts["predictions"]) == (1.0, every["predictions"])
    (limited,) = run(Says(right), tmp_path / "limited", task, shots=(0,), limit=1)
    assert limited["items"] == 1
    assert len({p["together"] for p in limited["predictions"]}) == 1
    assert len(limited["predictions"]) == {"7": 3, "9": 2}[limited["predictions"][0]["together"]]


def test_mathvista_takes_options_and_numbers_of_the_right_precision(tmp_path):
    columns = {
        "pid": ["1", "2", "3", "4"],
        "question": ["Which?", "How many?", "How long?", "Between which years?"],
        "unit": [None, "", "cm", None],
        "choices": [["red", "blue"], None, None, None],
        "question_type": ["multi_choice", "free_form", "free_form", "free_form"],
        "answer_type": ["text", "integer", "float", "list"],
        "precision": [None, None, 2.0, None],
        "answer": ["blue", "14", "1.2", "[2007, 2008]"],
        "decoded_image": pictures(4),
    }
    file = write_parquet(tmp_path / "m.parquet", columns, ("decoded_image",))
    task = localized(load_task("mathvista"), file)
    items = [open_items(task.data)[row] for row in range(4)]
    assert as_text(build_prompt(task, items[0], [items[2]])) == (
        "<image> Question: How long? (Unit: cm)\nAnswer: 1.20\n<image> Question: Which?\nA. red\nB. blue\nAnswer:"
    )
    assert [item.answers for item in items] == [("B", "blue"), ("14",), ("1.20",), ("[2007, 2008]",)]
    (result,) = run(
        Says({"Which?": "B", "many?": "14.0", "long?": "1.2049", "years?": "2007"}), tmp_path / "s", task, shots=(0,)
    )
    assert {p["id"]: p["score"] for p in result["predictions"]} == {"1": 1.0, "2": 1.0, "3": 1.0, "4": 0.0}
