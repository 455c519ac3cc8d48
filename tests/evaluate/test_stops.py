"""Stop strings are looked for in what is read: not in the names of special tokens, unless they name one."""

import pytest
import torch

from mm1.document import Document, Text
from mm1.evaluate.models.stops import Stops
from mm1.evaluate.models.transformers import TransformersGenerator

from .test_any_model import idefics3, tokenizer

ANSWER = "what color<end_of_utterance> is it?"
READ = "what color is it?"


@pytest.mark.parametrize(
    ("stop", "found", "text"),
    [
        ([], False, READ),
        (["utterance", "end", "<"], False, READ),
        (["<end_of_utterance>"], True, "what color"),
        (["utterance", "<end_of_utterance>", "is"], True, "what color"),
        (["color"], True, "what"),
        (["is", "color"], True, "what"),
        (["<end_of_utterance> is"], True, "what color"),
    ],
)
def test_where_an_answer_ends(stop, found, text):
    words = tokenizer("<end_of_utterance>")
    ids = words.encode(ANSWER)
    stops = Stops(words, stop)
    assert stops.found(ids) == found
    assert stops.text(ids) == text
    assert not stops.found([])
    assert stops.text([]) == ""


@pytest.fixture(scope="module")
def taught():
    """A model of another family that answers "is it red?" with `ANSWER`, and nothing that pads."""
    model, processor = idefics3()
    words = processor.tokenizer
    words.pad_token = None
    question, answer = words.encode("is it red?"), [*words.encode(ANSWER), words.eos_token_id]
    ids = torch.tensor([question + answer])
    labels = torch.tensor([[-100] * len(question) + answer])
    steps = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(100):
        steps.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        steps.step()
    model.generation_config.pad_token_id = None
    return model, processor


@pytest.mark.parametrize(
    ("stop", "text"), [([], READ), (["utterance"], READ), (["<end_of_utterance>"], "what color"), (["color"], "what")]
)
def test_an_answer_of_another_family(taught, stop, text):
    asked = [Document("a", "text", (Text("is it red?"),)), Document("b", "text", (Text("is it blue?"),))]
    generator = TransformersGenerator(*taught)
    assert generator.count_tokens(asked[0]) == generator.count_tokens(asked[1])  # so they are one batch
    answers = generator.generate(asked, max_new_tokens=24, stop=stop)
    assert answers[0] == text
    alone = [generator.generate([prompt], max_new_tokens=24, stop=stop)[0] for prompt in asked]
    assert answers == alone
