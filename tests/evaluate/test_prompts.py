import pytest

from mm1.document import Image, Text
from mm1.errors import UserError
from mm1.evaluate.prompts import as_text, build_prompt, frequent_answer
from mm1.evaluate.tasks.item import Item
from mm1.evaluate.tasks.task import load_task, packaged_tasks

PICTURES = [Image(bytes([n])) for n in range(4)]


def item(number: int, **fields: object) -> Item:
    answer = str(fields.get("answer", "red"))
    base = {"question": "what color is it?", "answer": answer, "caption": answer, "convention": "color"}
    return Item(f"item/{number}", (PICTURES[number],), {**base, **fields}, (answer,), number)


SNAPSHOTS = {
    "easy-vqa": (
        "<image> Question: what color is it? Short answer: red\n"
        "<image> Question: is it red? Short answer: no\n"
        "<image> Question: what color is it? Short answer:"
    ),
    "scenes-questions": (
        "<image> Question: what color is it? Short answer: red\n"
        "<image> Question: is it red? Short answer: no\n"
        "<image> Question: what color is it? Short answer:"
    ),
    "scenes-caption": "<image> red\n<image> no\n<image>",
    "pages": "<image> red\n<image> no\n<image>",
}


@pytest.mark.parametrize("name", SNAPSHOTS)
def test_two_shot_prompt(name):
    shots = [item(1), item(2, question="is it red?", answer="no")]
    prompt = build_prompt(load_task(name), item(0), shots)
    assert as_text(prompt) == SNAPSHOTS[name]
    assert prompt.images == (PICTURES[1], PICTURES[2], PICTURES[0])


def test_parts_are_those_of_training():
    prompt = build_prompt(load_task("easy-vqa"), item(0), [item(1)])
    asked = " Question: what color is it? Short answer:"
    assert [part.text for part in prompt.parts if isinstance(part, Text)] == [asked, " red\n", asked]


def test_zero_shot_is_the_query_alone():
    prompt = build_prompt(load_task("pages"), item(0))
    assert prompt.parts == (PICTURES[0],)


def test_a_shot_shows_the_most_frequent_answer():
    assert frequent_answer(Item("x", (), {}, ("a", "b", "b"), 0)) == "b"
    assert frequent_answer(Item("x", (), {}, ("a", "b"), 0)) == "a"


def test_braces_in_an_answer_stay():
    prompt = build_prompt(load_task("pages"), item(0), [item(1, answer="{image} {answer}")])
    assert as_text(prompt) == "<image> {image} {answer}\n<image>"


def test_missing_field_names_those_there():
    bare = Item("item/9", (PICTURES[0],), {"query": "?", "answer": "!"}, ("!",), 9)
    with pytest.raises(UserError, match=r"'item/9' has no field 'question': name one of answer, query"):
        build_prompt(load_task("easy-vqa"), bare)


def test_every_packaged_task_loads():
    assert {"easy-vqa", "scenes-caption", "scenes-questions", "pages"} <= set(packaged_tasks())
    assert all(load_task(name).name == name for name in packaged_tasks())


def test_unknown_task_gets_the_nearest_names():
    with pytest.raises(UserError, match=r"task 'easyvqa' is unknown: did you mean easy-vqa"):
        load_task("easyvqa")


def test_unknown_metric_and_key_are_named(tmp_path):
    file = tmp_path / "t.yaml"
    file.write_text("description: x\ndata: {corpus: a/b}\nprompt: x\nmetric: cidre\n")
    with pytest.raises(UserError, match="there is no metric 'cidre'"):
        load_task(str(file))
    file.write_text("description: x\ndata: {corpus: a/b}\nprompt: x\nmetric: cider\nstops: []\n")
    with pytest.raises(UserError, match="key 'stops'"):
        load_task(str(file))
