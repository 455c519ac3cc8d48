"""Items from tables in the forms that published data sets have."""

import json

import datasets
import pytest

from mm1.errors import UserError
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.tasks.items import chosen_items, open_items
from mm1.evaluate.tasks.task import ItemSource, Task

from .conftest import COLORS, square


def write_parquet(file, columns, image_columns=("image",)):
    table = datasets.Dataset.from_dict(columns)
    for name in image_columns:
        several = isinstance(columns[name][0], list)
        table = table.cast_column(name, datasets.List(datasets.Image()) if several else datasets.Image())
    table.to_parquet(str(file))
    return str(file)


def pictures(count):
    return [{"bytes": square(COLORS[n % 4], dot=n).data, "path": None} for n in range(count)]


def source(**keys):
    return ItemSource.model_validate(keys)


def test_vqav2_rows(tmp_path):
    answers = [[{"answer": "red", "answer_id": n} for n in range(9)] + [{"answer": "pink", "answer_id": 9}]] * 2
    columns = {"image": pictures(2), "question": ["what?", "why?"], "question_id": [7, 9], "answers": answers}
    file = write_parquet(tmp_path / "v.parquet", columns)
    items = open_items(source(file=file, id="question_id", answers="answers.answer"))
    assert [items[row].id for row in range(len(items))] == ["7", "9"]
    assert items[1].answers == ("red",) * 9 + ("pink",)
    assert items[1].images[0].data == square(COLORS[1], dot=1).data
    assert items[0].fields["question"] == "what?"
    assert [item.id for item in items.without_pictures()] == ["7", "9"]


def test_multiple_choice_with_index_literal_list_and_columns(tmp_path):
    base = {"image": pictures(1), "question": ["which?"]}
    scienceqa = write_parquet(tmp_path / "s.parquet", {**base, "choices": [["dog", "cat"]], "answer": [1]})
    mmmu = write_parquet(tmp_path / "m.parquet", {**base, "options": ["['dog', 'cat']"], "answer": ["B"]})
    seed = write_parquet(
        tmp_path / "d.parquet", {**base, "choice_a": ["dog"], "choice_b": ["cat"], "choice_c": [None], "answer": ["B"]}
    )
    sources = [
        source(file=scienceqa, options="choices", answers="answer", answer_is="index"),
        source(file=mmmu, options="options", answers="answer", answer_is="letter"),
        source(file=seed, options=["choice_a", "choice_b", "choice_c"], answers="answer", answer_is="letter"),
    ]
    for one in sources:
        item = open_items(one)[0]
        assert item.answers == ("B", "cat")
        task = Task(name="t", description="d", data=one, prompt="{image} {question}\n{options}\n", metric="accuracy")
        assert as_text(build_prompt(task, item)) == "<image> which?\nA. dog\nB. cat\n"


def test_pictures_where_the_text_names_them(tmp_path):
    columns = {
        "image_1": pictures(2),
        "image_2": [pictures(2)[1], None],
        "question": ["which? <image 2> or <image 1>?", "<image 2>"],
        "kind": ["choice", "open"],
        "answer": ["x", "y"],
    }
    file = write_parquet(tmp_path / "m.parquet", columns, ("image_1", "image_2"))
    data = {"file": file, "images": ["image_1", "image_2"], "answers": "answer"}
    base = {"name": "t", "description": "d", "metric": "accuracy", "picture_mark": "<image {n}>"}
    task = Task.model_validate({**base, "data": data, "prompt": "Q: {question} A:"})
    items = open_items(task.data)
    prompt = build_prompt(task, items[0])
    assert as_text(prompt) == "Q: which? <image> or <image>? A:"
    assert prompt.images == items[0].images[::-1]
    with pytest.raises(UserError, match="'1' names picture 2, and the item has 1 pictures"):
        build_prompt(task, items[1])
    assert len(open_items(source(**data, where={"kind": "open"}))) == 1


def test_lists_of_pictures_and_rows_without(tmp_path):
    columns = {"image": [pictures(2), pictures(1)], "answer": ["a", "b"]}
    items = open_items(source(file=write_parquet(tmp_path / "l.parquet", columns), answers="answer"))
    assert [len(items[row].images) for row in range(2)] == [2, 1]
    file = tmp_path / "t.jsonl"
    file.write_text('{"question": "1 + 1?", "answer": "2", "image": null}\n{"question": "?", "answer": "3"}\n')
    items = open_items(source(file=str(file), answers="answer"))
    assert [items[row].images for row in range(2)] == [(), ()]


def test_several_columns_of_pictures(tmp_path):
    columns = {"image_1": pictures(2), "image_2": [pictures(1)[0], None], "answer": ["a", "b"]}
    file = write_parquet(tmp_path / "m.parquet", columns, ("image_1", "image_2"))
    items = open_items(source(file=file, images=["image_1", "image_2"], answers="answer"))
    assert [len(items[row].images) for row in range(2)] == [2, 1]


def test_pictures_from_a_second_table(tmp_path):
    questions = tmp_path / "q.jsonl"
    lines = [{"question": f"q{n}", "answer": "x", "imageId": f"im{n % 2}"} for n in range(3)]
    questions.write_text("".join(json.dumps(line) + "\n" for line in lines))
    images = write_parquet(tmp_path / "i.parquet", {"id": ["im0", "im1"], "image": pictures(2)})
    items = open_items(source(file=str(questions), answers="answer", pictures={"file": images, "key": "imageId"}))
    assert [items[row].images[0].data for row in range(3)] == [square(COLORS[n], dot=n).data for n in (0, 1, 0)]


def test_jsonl_paths_start_from_the_file(tmp_path):
    (tmp_path / "im").mkdir()
    (tmp_path / "im" / "a.png").write_bytes(square("red").data)
    file = tmp_path / "x.jsonl"
    file.write_text('{"image": "im/a.png", "answer": "red"}\n')
    items = open_items(source(file=str(file), answers="answer"))
    assert items[0].images[0].read() == square("red").data


def test_only_the_ids_of_a_file(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_text("".join(f'{{"id": "c{n}", "answer": "x", "image": null}}\n' for n in range(5)))
    ids = tmp_path / "ids.txt"
    ids.write_text("c3\nc1\n")
    items = open_items(source(file=str(file), id="id", answers="answer"))
    assert [item.id for item in chosen_items(items, str(ids))] == ["c1", "c3"]
    ids.write_text("c3\nc9\n")
    with pytest.raises(UserError, match=r"1 ids are not in .*, for example 'c9'"):
        list(chosen_items(items, str(ids)))


def test_missing_columns_name_those_there(tmp_path):
    file = write_parquet(tmp_path / "v.parquet", {"image": pictures(1), "question": ["q"], "truth": ["x"]})
    with pytest.raises(UserError, match=r"no column 'answers': name one of image, question, truth"):
        open_items(source(file=file, answers="answers.answer"))
    with pytest.raises(UserError, match=r"no column 'picture'"):
        open_items(source(file=file, images="picture", answers="truth"))


def test_bad_tables(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        open_items(source(file=str(tmp_path / "none-*.parquet"), answers="a"))
    broken = tmp_path / "b.parquet"
    broken.write_bytes(b"not a table")
    with pytest.raises(UserError, match="can't be read"):
        open_items(source(file=str(broken), answers="a"))


def test_a_wrong_letter_is_named(tmp_path):
    columns = {"image": pictures(1), "options": [["dog", "cat"]], "answer": ["C"]}
    file = write_parquet(tmp_path / "m.parquet", columns)
    items = open_items(source(file=file, options="options", answers="answer", answer_is="letter"))
    with pytest.raises(UserError, match="answer 'C' names none of the 2 options"):
        items[0]


def test_a_task_draws_shots_from_another_split_of_the_same_form():
    data = {"hub": "someone/set", "name": "main", "split": "validation", "answers": "a", "only": "ids.txt"}
    base = {"name": "t", "description": "d", "data": data, "prompt": "{image}", "metric": "accuracy"}
    pool = Task.model_validate({**base, "shots": {"split": "train"}}).pool
    assert (pool.hub, pool.name, pool.split, pool.answers, pool.only) == ("someone/set", "main", "train", "a", None)
    assert Task.model_validate(base).pool.split == "validation"
