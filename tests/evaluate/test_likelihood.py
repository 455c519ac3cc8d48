"""Options chosen by likelihood, and the text tasks on small local files with their data sets' columns."""

import numpy as np
import pytest
import torch

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.likelihood import choose_options
from mm1.evaluate.models.generator import ContextTooShort, Likelihood
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.models.transformers import TransformersGenerator
from mm1.evaluate.prompts import as_text, build_prompt
from mm1.evaluate.tasks.derive import derived
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import load_task

from .test_any_model import idefics3
from .test_benchmark_tasks import localized
from .test_evaluate_model import run
from .test_generation import prompts
from .test_tables import write_parquet

CONTINUATIONS = [" red", " green yellow", " blue square of this color", " no"]


def plain_likelihood(model, processor, prompt, text):
    """One whole forward pass over pixels and tokens, one prompt."""
    encoded = processor.encode(prompt, close=False)
    after = processor.tokenizer(text, add_special_tokens=False)["input_ids"]
    ids = torch.cat([torch.from_numpy(encoded.input_ids), torch.tensor(after)])[None]
    pixels = processor.normalize(torch.from_numpy(processor.pixel_values(encoded.images)))
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels if len(pixels) else None).logits[0].double()
    logits[:, processor.image_token_id] = -torch.inf
    rows = logits[len(ids[0]) - len(after) - 1 : -1]
    greedy = rows.argmax(-1).tolist() == after
    return float(rows.log_softmax(-1)[range(len(after)), after].sum()), greedy


def test_equals_a_plain_forward_pass_for_any_batch_size(model, processor):
    asked = [prompt for prompt in prompts(12) for _ in CONTINUATIONS]
    texts = CONTINUATIONS * 12
    expected = [plain_likelihood(model, processor, p, t) for p, t in zip(asked, texts, strict=True)]
    for batch_size in (1, 5, 64):
        found = MM1Generator(model, processor, batch_size=batch_size).log_likelihoods(asked, texts)
        assert [f.total for f in found] == pytest.approx([total for total, _ in expected], rel=1e-4)
        assert [f.greedy for f in found] == [greedy for _, greedy in expected]


def test_what_greedy_decoding_writes_is_greedy(model, processor):
    generator = MM1Generator(model, processor)
    asked = prompts(6)
    logits_free = [plain_likelihood(model, processor, p, " red")[1] for p in asked]
    assert [f.greedy for f in generator.log_likelihoods(asked, [" red"] * 6)] == logits_free


def test_text_without_pictures_and_damaged_pictures(model, processor):
    generator = MM1Generator(model, processor)
    text = Document("t", "text", (Text("Question: is it red?"),))
    broken = Document("b", "caption", (Image(b"nothing"),))
    fine, bad = generator.log_likelihoods([text, broken], [" no", " no"])
    assert np.isfinite(fine.total)
    assert fine.total < 0
    assert isinstance(bad.error, UserError)


def test_too_long_is_named(model, processor):
    long = Document("l", "text", (Text("red " * model.config.get_text_config().max_position_embeddings),))
    with pytest.raises(ContextTooShort):
        MM1Generator(model, processor).log_likelihoods([long], [" x"])


def test_other_families_read_text():
    model, processor = idefics3()
    generator = TransformersGenerator(model, processor)
    text = Document("t", "text", (Text("Question: is it red? Short answer:"),))
    (found,) = generator.log_likelihoods([text], [" no"])
    ids = processor.tokenizer(text.text + " no", return_tensors="pt").input_ids
    count = len(processor.tokenizer(" no", add_special_tokens=False).input_ids)
    with torch.no_grad():
        each = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])
    assert found.total == pytest.approx(float(each[-count:].sum()), rel=1e-4)


# task: (columns, prompts with two shots of the row itself, options' continuations, right option)
TEXT_TASKS = {
    "arc-easy": (
        {
            "id": ["a"],
            "question": ["Why?"],
            "choices": [{"text": ["so", "not so"], "label": ["1", "2"]}],
            "answerKey": ["2"],
        },
        "Question: Why?\nAnswer: not so\n\nQuestion: Why?\nAnswer:",
        [" so", " not so"],
        "not so",
    ),
    "piqa": (
        {"goal": ["Open it."], "sol1": ["Turn."], "sol2": ["Shout."], "label": [0]},
        "Question: Open it.\nAnswer: Turn.\n\nQuestion: Open it.\nAnswer:",
        [" Turn.", " Shout."],
        "Turn.",
    ),
    "hellaswag": (
        {
            "activity_label": ["Cooking"],
            "ctx_a": ["[header] A man stirs. "],
            "ctx_b": ["he"],
            "endings": [["eats [title] well.", "flies."]],
            "label": ["0"],
        },
        "Cooking: A man stirs. He eats. well.\n\nCooking: A man stirs. He",
        [" eats. well.", " flies."],
        "eats. well.",
    ),
    "sciq": (
        {
            "support": ["  Ice is cold."],
            "question": ["What is ice?"],
            "distractor1": ["hot"],
            "distractor2": ["loud"],
            "distractor3": ["sweet"],
            "correct_answer": ["cold"],
        },
        "Ice is cold.\nQuestion: What is ice?\nAnswer: cold\n\nIce is cold.\nQuestion: What is ice?\nAnswer:",
        [" hot", " loud", " sweet", " cold"],
        "cold",
    ),
    "winogrande": (
        {"sentence": ["Ann saw Eve because _ waved."], "option1": ["Ann"], "option2": ["Eve"], "answer": ["2"]},
        "Ann saw Eve because Eve waved.\n\nAnn saw Eve because Ann",
        [" waved.", " waved."],
        "Eve",
    ),
    "lambada": (
        {"text": ["The dog ran after the cat"]},
        "The dog ran after the cat\n\nThe dog ran after the",
        [" cat"],
        "cat",
    ),
}


def as_it_is(error, item, shots):
    return error


class Likes:
    """Finds likeliest what a rule likes."""

    max_context = 1000
    takes_turns = False

    def __init__(self, likes):
        self._likes = likes
        self.asked = []

    def count_tokens(self, prompt):
        return 1

    def generate(self, prompts, *, max_new_tokens, stop, advance=None):
        raise AssertionError("options are chosen by likelihood, not written")

    def log_likelihoods(self, prompts, continuations, *, advance=None):
        self.asked += [(as_text(p), c) for p, c in zip(prompts, continuations, strict=True)]
        return [
            Likelihood(float(self._likes(as_text(p) + c)), True) for p, c in zip(prompts, continuations, strict=True)
        ]


@pytest.mark.parametrize("name", TEXT_TASKS)
def test_text_task(name, tmp_path):
    columns, expected, continuations, right = TEXT_TASKS[name]
    task = localized(load_task(name), write_parquet(tmp_path / f"{name}.parquet", columns, ()))
    item = open_items(task.data)[0]
    assert item.answers[-1] == right
    seer = Likes(lambda text: -(10.0 ** -text.count(right)))
    shown, answers = choose_options(seer, task, [item], [(item,)], as_it_is, lambda done: None)
    assert as_text(shown[0]) == expected
    assert [text for _, text in seer.asked] == continuations
    assert answers == [right]


def test_likelihood_per_character_does_not_punish_length(tmp_path):
    columns = {"goal": ["x"], "sol1": ["ab"], "sol2": ["abcdefgh"], "label": [1]}
    task = localized(load_task("piqa"), write_parquet(tmp_path / "p.parquet", columns, ()))
    item = open_items(task.data)[0]
    each = Likes(lambda text: -2.0 if text.endswith(" ab") else -4.0)
    summed = task.model_copy(update={"likelihood": "sum"})
    assert choose_options(each, task, [item], [()], as_it_is, lambda done: None)[1] == ["abcdefgh"]
    assert choose_options(each, summed, [item], [()], as_it_is, lambda done: None)[1] == ["ab"]


def test_greedy_needs_to_be_what_decoding_writes(tmp_path):
    class Reluctant(Likes):
        def log_likelihoods(self, prompts, continuations, *, advance=None):
            return [Likelihood(-1.0, False) for _ in prompts]

    task = localized(load_task("lambada"), write_parquet(tmp_path / "l.parquet", {"text": ["a b c"]}, ()))
    item = open_items(task.data)[0]
    assert choose_options(Reluctant(None), task, [item], [()], as_it_is, lambda done: None)[1] == [""]


def test_triviaqa_takes_any_alias(tmp_path):
    columns = {"question_id": ["t"], "question": ["Who?"], "answer": [{"aliases": ["Bob", "Robert"], "value": "Bob"}]}
    task = localized(load_task("triviaqa"), write_parquet(tmp_path / "t.parquet", columns, ()))
    item = open_items(task.data)[0]
    assert item.answers == ("Bob", "Robert")
    assert as_text(build_prompt(task, item, [item])) == "Question: Who??\nAnswer: Bob\n\nQuestion: Who??\nAnswer:"


def test_webqs_takes_whichever_accepted_answer_greedy_decoding_writes(tmp_path):
    class Writes(Likes):
        def log_likelihoods(self, prompts, continuations, *, advance=None):
            return [Likelihood(-float(len(text)), text == " Rome") for text in continuations]

    columns = {"question": ["Where?", "Who?"], "answers": [["Rome Italy", "Rome", "Bern"], ["Bob"]]}
    task = localized(load_task("webqs"), write_parquet(tmp_path / "w.parquet", columns, ()))
    items = [open_items(task.data)[row] for row in range(2)]
    assert items[0].options == ("Bern", "Rome")  # who writes "Rome Italy" has written "Rome"
    assert items[0].answers == ("A", "B", "Bern", "Rome")
    assert choose_options(Writes(None), task, items, [(), ()], as_it_is, lambda done: None)[1] == ["Rome", ""]


def test_a_text_task_from_end_to_end(tmp_path, model, processor):
    columns = {
        "goal": [f"goal {n}" for n in range(6)],
        "sol1": ["red"] * 6,
        "sol2": ["green"] * 6,
        "label": [0, 1] * 3,
    }
    task = localized(load_task("piqa"), write_parquet(tmp_path / "p.parquet", columns, ()))
    task = task.model_copy(update={"shots": task.shots.model_copy(update={"split": None})})
    results = run(MM1Generator(model, processor), tmp_path / "scores", task, shots=(0, 2))
    assert all(p["prediction"] in ("red", "green") for result in results for p in result["predictions"])
    assert results[1]["protocol"]["decoding"] == "likelihood, per character"


def test_a_row_that_a_rule_does_not_fit_is_named():
    with pytest.raises(UserError, match="row 3: the row doesn't have the form that rule 'arc' expects"):
        derived("arc", {"choices": {"text": ["a"], "label": ["A"]}, "answerKey": "B"}, "row 3")
