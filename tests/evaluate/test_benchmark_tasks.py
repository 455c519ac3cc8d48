"""The shipped benchmark tasks on small local files with the columns of the Hub data sets they name."""

import pytest

from mm1.evaluate.items import open_items
from mm1.evaluate.metrics import METRICS
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.task import load_task, packaged_tasks

from .test_tables import pictures, write_parquet

TEN = ["red"] * 9 + ["pink"]
DICTS = [{"answer": answer, "answer_id": n, "answer_confidence": "yes"} for n, answer in enumerate(TEN)]
CAPTIONS = ["A red square.", "A square on white."]
QUESTION = {"question": ["What color?"] * 3, "question_id": ["q0", "q1", "q2"]}
CAPTION_PROMPT = "<image> A photo of A red square.\n<image> A photo of"
VQA_PROMPT = "<image> Question: What color? Short answer: red\n<image> Question: What color? Short answer:"
OPTIONS = "Question: What color?\nA. red\nB. blue\nAnswer:"
CHOICE_PROMPT = f"<image> {OPTIONS} B\n<image> {OPTIONS}"

# task: (columns besides `image`, prompt of one shot, a right answer)
SCHEMAS = {
    "coco": ({**QUESTION, "answer": [CAPTIONS] * 3}, CAPTION_PROMPT, CAPTIONS[0]),
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
    "mmbench": (
        {
            "question": ["What color?"] * 3,
            "index": [5, 6, 7],
            "A": ["red"] * 3,
            "B": ["blue"] * 3,
            "C": ["nan"] * 3,
            "D": ["nan"] * 3,
            "answer": ["B"] * 3,
        },
        CHOICE_PROMPT,
        "(B)",
    ),
}
OWN = {"easy-vqa", "scenes-caption", "scenes-questions", "pages"}
APART = {"gqa", "mmmu"}
TEXT = {"arc-easy", "arc-challenge", "piqa", "hellaswag", "sciq", "winogrande", "lambada", "triviaqa", "webqs"}


def localized(task, file, **more):
    update = {"hub": None, "name": None, "split": None, "file": file, **more}
    return task.model_copy(update={"data": task.data.model_copy(update=update)})


def test_every_shipped_benchmark_is_tested():
    assert set(packaged_tasks()) == set(SCHEMAS) | OWN | APART | TEXT


@pytest.mark.parametrize("name", SCHEMAS)
def test_prompt_and_metric(name, tmp_path):
    columns, expected, right = SCHEMAS[name]
    file = write_parquet(tmp_path / f"{name}.parquet", {"image": pictures(3), **columns})
    task = localized(load_task(name), file)
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
