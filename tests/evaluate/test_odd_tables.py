"""Items are what the user's files say, whatever these hold; what can't be an item is named by its file and row."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from mm1.errors import UserError
from mm1.evaluate.floors import majority_answers
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.shots import ShotPool
from mm1.evaluate.tasks.item import Items
from mm1.evaluate.tasks.items import chosen_items, open_items
from mm1.evaluate.tasks.task import ItemSource, Task, load_task

from .conftest import COLORS, square

NAN = float("nan")
NO_PICTURE = {"image": None, "question": "q"}


def write(file: Path, rows: list[Any], encoding: str = "utf-8") -> str:
    """Write rows as JSON Lines, texts as they are."""
    lines = [row if isinstance(row, str) else json.dumps({**NO_PICTURE, **row}, ensure_ascii=False) for row in rows]
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("".join(line + "\n" for line in lines).encode(encoding))
    return str(file)


def write_table(file: Path, **columns: Any) -> str:
    rows = len(next(iter(columns.values())))
    pq.write_table(pa.table({"image": pa.nulls(rows, pa.binary()), "question": ["q"] * rows, **columns}), file)
    return str(file)


def read(file: str, **keys: Any) -> Items:
    return open_items(ItemSource.model_validate({"file": file, "answers": "answer", **keys}))


def answers(items: Items) -> list[tuple[str, ...]]:
    return [items[row].answers for row in range(len(items))]


def prompts(items: Items, file: str, template: str) -> list[str]:
    data = {"file": file, "answers": "answer"}
    task = Task.model_validate(
        {"name": "t", "description": "d", "data": data, "prompt": template, "metric": "accuracy"}
    )
    return [as_text(build_prompt(task, items[row])) for row in range(len(items))]


def test_json_values_stay_as_they_are(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        [
            {"answer": "2020-01-01", "question": "2021-05-06T10:00:00"},
            {"answer": 3, "question": "?"},
            {"answer": 2.5},
            {"answer": "1,000", "hint": "in the last row only"},
            {"answer": [7, "seven"]},
        ],
    )
    items = read(file)
    assert answers(items) == [("2020-01-01",), ("3",), ("2.5",), ("1,000",), ("7", "seven")]
    assert prompts(items, file, "{hint}/{question}")[::3] == ["/2021-05-06T10:00:00", "in the last row only/q"]


def test_numbers_of_tables(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", answer=[3.0, 2.5], year=[2020.0, None], id=[1.0, 2.0])
    items = read(file, id="id")
    assert answers(items) == [("3",), ("2.5",)]
    assert prompts(items, file, "in {year}:") == ["in 2020:", "in :"]
    assert list(items.ids()) == ["1", "2"]
    assert answers(read(write_table(tmp_path / "b.parquet", answer=[True, False]))) == [("yes",), ("no",)]


@pytest.mark.parametrize("answer", [[None], [""], [" \n"], [[]], [["", None]]])
def test_an_answer_that_says_nothing_is_none(tmp_path: Path, answer: list[Any]) -> None:
    with pytest.raises(UserError, match=r"row 1 of .* has no answer in 'answer', so it can't be scored"):
        answers(read(write(tmp_path / "a.jsonl", [{"answer": "x"}, {"answer": answer[0]}])))


def test_nan_is_no_answer_and_no_id(tmp_path: Path) -> None:
    file = write_table(tmp_path / "a.parquet", answer=[1.0, NAN], id=["a", None])
    with pytest.raises(UserError, match="row 1 of .* has no answer"):
        answers(read(file))
    with pytest.raises(UserError, match="row 1 of .*: its id 'id' is missing"):
        list(read(file, id="id").ids())


def test_keys_of_answers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", [{"answer": {"text": ["a", "b"]}}, {"answer": [{"text": "c"}, None]}])
    assert answers(read(file, answers="answer.text")) == [("a", "b"), ("c",)]
    with pytest.raises(UserError, match=r"'answer' has no key 'words': name one of text in `answers`"):
        answers(read(file, answers="answer.words"))
    with pytest.raises(UserError, match=r"row 0 of .* is an object: name what holds its text"):
        answers(read(file))
    with pytest.raises(UserError, match=r"'answer' holds a text and no object with a key 'text'"):
        answers(read(write(tmp_path / "b.jsonl", [{"answer": "a"}]), answers="answer.text"))


@pytest.mark.parametrize(
    ("options", "answer", "answer_is", "right", "lines"),
    [
        (["a", None, "c"], "C", "letter", ("B", "c"), "A. a\nB. c"),
        (["a", None, "c", "d"], 2, "index", ("B", "c"), "A. a\nB. c\nC. d"),
        (["a", None, "c"], "c", "text", ("B", "c"), "A. a\nB. c"),
        ([1, 2.5, 2], 2.0, "text", ("C", "2"), "A. 1\nB. 2.5\nC. 2"),
        ([True, False], False, "text", ("B", "no"), "A. yes\nB. no"),
        ({"A": "a", "B": "b"}, "B", "letter", ("B", "b"), "A. a\nB. b"),
        ('["a", null, "c"]', "(c)", "letter", ("B", "c"), "A. a\nB. c"),
        (["red", "blue"], "B. blue", "letter", ("B", "blue"), "A. red\nB. blue"),
        (["red", "blue"], "1", "index", ("B", "blue"), "A. red\nB. blue"),
    ],
)
def test_options(tmp_path: Path, options: Any, answer: Any, answer_is: str, right: tuple[str, ...], lines: str) -> None:
    file = write(tmp_path / "a.jsonl", [{"answer": answer, "o": options}])
    item = read(file, options="o", answer_is=answer_is)[0]
    assert (item.answers, item.fields["options"]) == (right, lines)


@pytest.mark.parametrize(
    ("options", "answer", "answer_is", "message"),
    [
        (["red", "blue"], "Blue", "letter", "answer 'Blue' names none of the 2 options"),
        (["a", None, "c"], "B", "letter", "answer 'B' names none of the 2 options"),
        (["a", "b"], "foo", "index", "answer 'foo' names none of the 2 options"),
        (["a", "b"], 0.5, "index", r"answer 0\.5 names none of the 2 options"),
        ("5", 1, "index", "field 'o' is no list of options"),
        ({"x": "a", "y": "b"}, "x", "text", "field 'o' is no list of options"),
        ([["a"]], "a", "text", "an answer or option is a list"),
    ],
)
def test_options_that_are_none(tmp_path: Path, options: Any, answer: Any, answer_is: str, message: str) -> None:
    items = read(write(tmp_path / "a.jsonl", [{"answer": answer, "o": options}]), options="o", answer_is=answer_is)
    with pytest.raises(UserError, match=rf"row 0 of .*{message}"):
        items[0]


def test_pictures_of_several_files_lie_beside_their_own(tmp_path: Path) -> None:
    for number in (1, 2):
        folder = tmp_path / f"s{number}"
        write(folder / "x.jsonl", [{"answer": "a", "image": "p.png"}, {"answer": f"{number}", "image": "p.png"}])
        pq.write_table(pa.table({"image": ["p.png"] * 2, "answer": ["a", f"{number}"]}), folder / "x.parquet")
        (folder / "p.png").write_bytes(square(COLORS[number]).data or b"")
    for ending in ("jsonl", "parquet"):
        items = read(str(tmp_path / "s?" / f"x.{ending}"))
        read_pictures = [items[row].images[0].read() for row in range(4)]
        assert read_pictures == [square(COLORS[number]).data for number in (1, 1, 2, 2)]
        chosen = read(str(tmp_path / "s?" / f"x.{ending}"), where={"answer": "2"})
        assert chosen[0].images[0].read() == square(COLORS[2]).data


def test_names_of_files(tmp_path: Path) -> None:
    for name in ("x[1].jsonl", "a b é.JSONL", "a.ndjson"):
        assert answers(read(write(tmp_path / name, [{"answer": "a"}]))) == [("a",)]
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"answer": "packed", "image": ""}\n'))
    items = read(str(tmp_path / "a.jsonl.gz"))
    assert (items[0].answers, items[0].images) == (("packed",), ())
    assert answers(read(write(tmp_path / "u.jsonl", [{"answer": "é"}], "utf-16"))) == [("é",)]


@pytest.mark.parametrize(
    ("rows", "encoding", "message"),
    [
        ([{"answer": "a"}, '{"answer": "b'], "utf-8", r"a\.jsonl:2 .*: broken JSON line"),
        ([{"answer": "a"}, {"answer": "é"}], "latin-1", r"a\.jsonl:2: text that is not UTF-8"),
        ([{"answer": "a"}, "[1]"], "utf-8", r"a\.jsonl:2: JSON line that is no object"),
        ([], "utf-8", r"a\.jsonl: empty file"),
        ([{"answer": "a"}, '{"answer": "\\ud800"}'], "utf-8", r"a\.jsonl:2: a text has half of a surrogate pair"),
    ],
)
def test_a_line_that_is_no_item_is_named(tmp_path: Path, rows: list[Any], encoding: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(write(tmp_path / "a.jsonl", rows, encoding))


def test_parquet_of_other_columns_is_named(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", answer=["a"])
    write_table(tmp_path / "2.parquet", answer=[1])
    with pytest.raises(UserError, match=r"2\.parquet: it has other columns than .*1\.parquet \(answer"):
        read(str(tmp_path / "*.parquet"))
    (tmp_path / "3.parquet").write_bytes((tmp_path / "1.parquet").read_bytes()[:-9])
    with pytest.raises(UserError, match=r"3\.parquet: the table can't be read \(.*(?i:parquet)"):
        read(str(tmp_path / "3.parquet"))


def test_ids_are_lines(tmp_path: Path) -> None:
    items = read(write(tmp_path / "a.jsonl", [{"answer": "x", "id": id} for id in ("a", "b c", "d")]), id="id")
    (tmp_path / "ids.txt").write_bytes("\ufeffb c\r\na\r\n\r\n".encode())
    assert [item.id for item in chosen_items(items, str(tmp_path / "ids.txt"))] == ["a", "b c"]
    (tmp_path / "ids.txt").write_bytes(b"\xe9")
    with pytest.raises(UserError, match=r"ids\.txt: the ids can't be read"):
        list(chosen_items(items, str(tmp_path / "ids.txt")))


def test_shots_that_share_a_list(tmp_path: Path) -> None:
    rows = [{"answer": "x", "tags": ["a"]}, {"answer": "y", "tags": ["b"]}, {"answer": "z", "tags": ["a"]}]
    data = {"file": write(tmp_path / "a.jsonl", rows), "answers": "answer"}
    base = {"name": "t", "description": "d", "prompt": "{question}", "metric": "accuracy"}
    task = Task.model_validate({**base, "data": data, "shots": {"same": "tags"}})
    items = open_items(task.data)
    assert [shot.id for shot in ShotPool(task, items).draw(items[0], 1, 0)] == ["2"]
    assert majority_answers(task, [items[1]], items) == ["y"]


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("postprocess", ["(a"], r"'\(a' is no regular expression"),
        ("stop", [""], "an empty text stops before"),
        ("after", "", "after: an empty text"),
        ("name", "a/b", "name: 'a/b' is part of the name of the result's file"),
    ],
)
def test_patterns_and_words_that_can_not_be(tmp_path: Path, key: str, value: Any, message: str) -> None:
    task = {"description": "d", "data": {"file": "a.jsonl", "answers": "a"}, "prompt": "{image}", "metric": "accuracy"}
    (tmp_path / "t.yaml").write_text(json.dumps({**task, key: value}))
    with pytest.raises(UserError, match=message):
        load_task(str(tmp_path / "t.yaml"))
