"""lmms-eval with our checkpoints. Without it a bare base class stands for its own, and one test is left out."""

import importlib
import json
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor

from .conftest import COLORS, QUESTIONS, square
from .test_chat_models import in_training
from .test_run import saved  # noqa: F401 - a fixture
from .test_tables import pictures, write_parquet


class Base:
    def __init__(self):
        self.task_dict = {}


@pytest.fixture
def adapter(monkeypatch):
    try:
        import lmms_eval.api.model  # noqa: F401
    except ImportError:
        for name in ("lmms_eval", "lmms_eval.api", "lmms_eval.api.model"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules["lmms_eval.api.model"], "lmms", Base, raising=False)
        monkeypatch.delitem(sys.modules, "mm1.evaluate.models.lmms_adapter", raising=False)
    return importlib.import_module("mm1.evaluate.models.lmms_adapter")


@pytest.fixture
def lmms_model(adapter, saved):  # noqa: F811
    found = adapter.LmmsEvalAdapter(str(saved), batch_size="2", device="cpu")
    found.task_dict = {"squares": {"test": [{"image": [opened(n)]} for n in range(4)]}}
    return found


def test_the_entry_point_names_the_adapter(adapter, monkeypatch):
    try:
        import lmms_eval.models.registry_v2  # noqa: F401
    except ImportError:
        for name in ("lmms_eval.models", "lmms_eval.models.registry_v2"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        registered = lambda model_id, simple_class_path: SimpleNamespace(simple_class_path=simple_class_path)  # noqa: E731
        registry = sys.modules["lmms_eval.models.registry_v2"]
        monkeypatch.setattr(registry, "ModelManifest", registered, raising=False)
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    module, _, function = project["entry-points"]["lmms_eval.models"]["mm1"].partition(":")
    manifest = getattr(importlib.import_module(module), function)()
    module, _, name = manifest.simple_class_path.rpartition(".")
    assert getattr(importlib.import_module(module), name) is adapter.LmmsEvalAdapter


def opened(number):
    from mm1.processing.images import decode_image

    return decode_image(square(COLORS[number], dot=number).read())


def request(number, *arguments):
    return SimpleNamespace(args=(*arguments, lambda row: row["image"], number, "squares", "test"))


def test_answers_are_those_of_our_own_scoring(lmms_model, model, processor):
    asked = [
        request(n, f"Question: {QUESTIONS[n % 3]} Short answer:", {"until": ["\n"], "max_new_tokens": 3 + n % 2})
        for n in range(4)
    ]
    documents = [
        Document(
            str(n), "caption", (square(COLORS[n], dot=n), Text(f" Question: {QUESTIONS[n % 3]} Short answer:", False))
        )
        for n in range(4)
    ]
    own = MM1Generator(model, processor)
    expected = [own.generate([d], max_new_tokens=3 + n % 2, stop=["\n"])[0] for n, d in enumerate(documents)]
    assert lmms_model.generate_until(asked) == expected
    likelihoods = lmms_model.loglikelihood([request(n, asked[n].args[0], lambda row: " red") for n in range(4)])
    of_own = own.log_likelihoods(documents, [" red"] * 4)
    assert [total for total, _ in likelihoods] == pytest.approx([found.total for found in of_own], rel=1e-4)
    assert [greedy for _, greedy in likelihoods] == [found.greedy for found in of_own]


def test_pictures_stand_where_the_text_marks_them(lmms_model):
    lmms_model.task_dict["squares"]["test"][0]["image"] *= 2
    prompt = lmms_model._prompt("first <image>, then <image>?", lambda row: row["image"], 0, "squares", "test")
    words = ["image" if isinstance(part, Image) else part.text for part in prompt.parts]
    assert words == ["first ", "image", " , then ", "image", " ?"]
    prompt = lmms_model._prompt("<image> which?", lambda row: row["image"], 0, "squares", "test")
    assert [part if isinstance(part, Image) else part.text for part in prompt.parts][2:] == [" which?"]
    prompt = lmms_model._prompt("\nwhich?", lambda row: row["image"], 0, "squares", "test")
    assert [part if isinstance(part, Image) else part.text for part in prompt.parts][2:] == ["\nwhich?"]


def test_a_chat_model_is_asked_in_conversations(adapter, tmp_path, model, processor):
    chat = build_processor(
        processor.tokenizer, image_size=16, tokens_per_image=4, chat_template=default_chat_template()
    )
    for part in (model, chat):
        part.save_pretrained(tmp_path / "chat" / "model")
    found = adapter.LmmsEvalAdapter(str(tmp_path / "chat"), device="cpu")
    found.task_dict = {"squares": {"test": [{"image": [opened(n)]} for n in range(4)]}}
    questions = [f"{QUESTIONS[n % 3]}\nAnswer in a word." for n in range(4)]
    prompts = [
        Document(str(n), "chat", (square(COLORS[n], dot=n), Text(questions[n], False)), {"turns": ["user", "user"]})
        for n in range(4)
    ]
    asked = [request(n, questions[n], {"until": ["\n"], "max_new_tokens": 4}) for n in range(4)]
    own = MM1Generator(model, chat)
    assert found.generate_until(asked) == own.generate(prompts, max_new_tokens=4, stop=["\n"])
    likelihoods = found.loglikelihood([request(n, questions[n], "red") for n in range(4)])
    expected = [in_training(model, chat, prompt, "red") for prompt in prompts]
    assert [total for total, _ in likelihoods] == pytest.approx(expected, rel=1e-4)


def test_what_it_cannot_do_is_said(lmms_model):
    with pytest.raises(UserError, match="mm1 decodes greedily"):
        lmms_model.generate_until([request(0, "why?", {"do_sample": True})])
    lmms_model.task_dict["squares"]["test"][1]["image"] = ["film.mp4"]
    with pytest.raises(UserError, match="squares 1: it shows a str, and mm1 takes only pictures"):
        lmms_model.generate_until([request(1, "why?", {})])


TASK = """
task: squares
dataset_path: parquet
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: generate_until
doc_to_visual: !function rules.visual
doc_to_text: "Question: {{question}} Short answer:"
doc_to_target: answer
generation_kwargs: {until: ["\\n"], max_new_tokens: 3, do_sample: false, temperature: 0}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: [{version: 0.0}]
"""


def test_lmms_eval_itself_scores_a_run(tmp_path, saved, model, processor):  # noqa: F811
    pytest.importorskip("lmms_eval")
    from lmms_eval.evaluator import simple_evaluate
    from lmms_eval.tasks import TaskManager

    from mm1.evaluate.models.lmms_adapter import LmmsEvalAdapter

    own = MM1Generator(model, processor)
    ask = [
        Document(str(n), "caption", (square(COLORS[n % 4], dot=n), Text(" Question: is it red? Short answer:", False)))
        for n in range(4)
    ]
    said = own.generate(ask, max_new_tokens=3, stop=["\n"])
    answers = [*said[:3], "something else"]  # right three times of four
    columns = {"image": pictures(4), "question": ["is it red?"] * 4, "answer": answers}
    file = write_parquet(tmp_path / "squares.parquet", columns)
    folder = tmp_path / "tasks"
    folder.mkdir()
    (folder / "squares.yaml").write_text(TASK.replace("FILE", json.dumps(file)))
    (folder / "rules.py").write_text("def visual(doc):\n    return [doc['image'].convert('RGB')]\n")
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    result = simple_evaluate(
        LmmsEvalAdapter(str(saved), device="cpu"), tasks=["squares"], task_manager=manager, batch_size=2
    )
    assert result["results"]["squares"]["exact_match,none"] == 0.75
