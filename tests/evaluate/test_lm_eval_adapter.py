"""lm-eval with our checkpoints. Without it a bare base class stands for its own."""

import importlib
import io
import logging
import pickle
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image as PILImage

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor

from .conftest import COLORS, square
from .test_chat_models import in_training
from .test_run import saved  # noqa: F401 - a fixture


@pytest.fixture
def adapter(monkeypatch):
    try:
        import lm_eval.api.model  # noqa: F401
    except ImportError:
        for name in ("lm_eval", "lm_eval.api", "lm_eval.api.model", "lm_eval.api.registry"):
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setattr(sys.modules["lm_eval.api.model"], "LM", type("LM", (), {}), raising=False)
        monkeypatch.setattr(
            sys.modules["lm_eval.api.registry"], "register_model", lambda *names: lambda cls: cls, raising=False
        )
        monkeypatch.delitem(sys.modules, "mm1.evaluate.models.lm_eval_adapter", raising=False)
    return importlib.import_module("mm1.evaluate.models.lm_eval_adapter")


@pytest.fixture
def lm(adapter, saved):  # noqa: F811
    return adapter.LmEvalAdapter(str(saved), batch_size="auto:4", device="cuda:0", max_batch_size=None)


def request(*args):
    return SimpleNamespace(args=args, task_name="squares", doc_id=3)


def log_probabilities(lm, ids):
    model = lm._generator.model
    with torch.no_grad():
        logits = model(torch.tensor([ids], device=model.device)).logits[0].cpu()
    logits[:, model.config.image_token_id] = -torch.inf  # no model says it
    return logits.log_softmax(-1)


def test_likelihoods_are_those_of_the_logits(lm):
    tokenizer = lm._generator.processor.tokenizer
    before, after = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in ("is it", " red or blue"))
    wanted = log_probabilities(lm, [tokenizer.bos_token_id, *before, *after])
    total = sum(float(wanted[len(before) + number, token]) for number, token in enumerate(after))
    ((found, greedy),) = lm.loglikelihood([request("is it", " red or blue")])
    assert found == pytest.approx(total, abs=1e-4)
    assert greedy == all(int(wanted[len(before) + number].argmax()) == token for number, token in enumerate(after))
    whole = tokenizer("is it red", add_special_tokens=False)["input_ids"]
    wanted = log_probabilities(lm, [tokenizer.bos_token_id, *whole])
    total = sum(float(wanted[number, token]) for number, token in enumerate(whole))
    assert lm.loglikelihood_rolling([request("is it red")]) == [pytest.approx(total, abs=1e-4)]


def test_answers_are_the_generator_s(lm):
    pictures = [PILImage.new("RGB", (16, 16), color) for color in COLORS[:2]]
    settings = {"until": ["\n"], "max_gen_toks": 5, "do_sample": False}
    asked = [
        request("what color is it?", settings),
        request("<image> and <image> are", settings, {"visual": pictures}),
        request("is it red?", {"until": "e", "temperature": 0}),
    ]
    found = lm.generate_until(asked)
    prompt = Document("a", "caption", (Text("what color is it?", target=False),))
    assert found[0] == lm._generator.generate([prompt], max_new_tokens=5, stop=["\n"])[0]
    assert lm.generate_until(asked[1:2]) == found[1:2]
    assert len(found) == 3
    with pytest.raises(UserError, match="decodes greedily"):
        lm.generate_until([request("is it red?", {"do_sample": True})])
    with pytest.raises(UserError, match="squares 3: it shows a str"):
        lm.generate_until([request("<image>", settings, {"visual": ["a.mp4"]})])


@pytest.fixture
def chat(processor):
    template = default_chat_template()
    return build_processor(processor.tokenizer, image_size=16, tokens_per_image=4, chat_template=template)


@pytest.fixture
def chat_lm(adapter, tmp_path, model, chat):
    for part in (model, chat):
        part.save_pretrained(tmp_path / "chat" / "model")
    return adapter.LmEvalAdapter(str(tmp_path / "chat"), device="cpu")


ROUNDS = [
    {"role": "system", "content": "Answer in a word."},
    {"role": "user", "content": "<image>\nwhat color is it?"},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": "<image> and now?"},
]


def test_a_chat_template_makes_conversations(chat_lm, model, chat):
    """As with `--apply_chat_template --fewshot_as_multiturn`: pictures stand in their turns."""
    prompt = pickle.loads(pickle.dumps(chat_lm.apply_chat_template(ROUNDS)))  # lm-eval may store it
    pictures = [square(color, dot=n) for n, color in enumerate(COLORS[:2])]
    shown = {"visual": [PILImage.open(io.BytesIO(picture.read())) for picture in pictures]}
    system, asked, answer, again = (
        Text(text, False) for text in ("Answer in a word.", "what color is it?", "red", "and now?")
    )
    expected = Document(
        "a",
        "chat",
        (system, pictures[0], asked, answer, pictures[1], again),
        {"turns": ["system", "user", "user", "assistant", "user", "user"]},
    )
    settings = {"until": ["\n"], "max_gen_toks": 5}
    (said,) = chat_lm.generate_until([request(prompt, settings, shown)])
    assert said == chat_lm._generator.generate([expected], max_new_tokens=5, stop=["\n"])[0]
    ((found, _),) = chat_lm.loglikelihood([request(prompt, "blue", shown)])
    assert found == pytest.approx(in_training(model, chat, expected, "blue"), rel=1e-4)
    assert chat_lm.chat_template(True) == default_chat_template()
    assert "/" not in chat_lm.tokenizer_name


def test_pictures_without_marks_stand_before_the_last_turn(chat_lm):
    prompt = chat_lm.apply_chat_template([*ROUNDS[1:3], {"role": "user", "content": "and now?"}])
    document = chat_lm._prompt(request(prompt, {}, {"visual": [PILImage.new("RGB", (16, 16))] * 2}))
    assert ["image" if isinstance(part, Image) else part.text for part in document.parts] == [
        "what color is it?",
        "red",
        "image",
        "image",
        "and now?",
    ]
    assert document.meta["turns"] == ["user", "assistant", "user", "user", "user"]


def test_what_no_conversation_can_do_is_said(chat_lm, lm, caplog):
    with pytest.raises(UserError, match=r"it begins the answer itself.* leave gen_prefix out"):
        chat_lm.apply_chat_template([*ROUNDS, {"role": "assistant", "content": "It is"}], add_generation_prompt=False)
    with pytest.raises(UserError, match="a turn of 'tool', and mm1 takes turns of system, user, assistant"):
        chat_lm.apply_chat_template([{"role": "tool", "content": "1"}, *ROUNDS])
    with pytest.raises(UserError, match="not an MM1 model that was fine-tuned on conversations"):
        lm.apply_chat_template(ROUNDS)
    with caplog.at_level(logging.WARNING):
        lm.loglikelihood([request("is it", " red")])
        assert not caplog.records
        chat_lm.loglikelihood([request("is it", " red")] * 2)
        chat_lm.loglikelihood([request("is it", " red")])
    assert [record.getMessage().partition(" was ")[2] for record in caplog.records] == [
        "fine-tuned on conversations and is asked without: add --apply_chat_template"
    ]
