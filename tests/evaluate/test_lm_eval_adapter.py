"""lm-eval with our checkpoints. Without it a bare base class stands for its own."""

import importlib
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from PIL import Image as PILImage

from mm1.document import Document, Text
from mm1.errors import UserError

from .conftest import COLORS
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
