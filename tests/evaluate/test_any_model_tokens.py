"""The tokens that other families' models get: one BOS, likelihoods as lm-evaluation-harness has them, `--plain`."""

import json

import pytest
import torch
from tokenizers import normalizers, processors

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.models.transformers import TransformersGenerator
from tests.train.forked import mm1

from .test_any_model import CHAT, idefics3
from .test_evaluate_model import BASE
from .test_generation import prompts

WRITES_BOS = "{{ bos_token }}" + CHAT
PAIRS = [
    ("Question: is it red? Short answer:", " no"),
    ("Question: is it red? Short answer: ", "no"),
    ("which of the colors does this square have?\n\n", " blue green"),
    ("", " red square"),
    (" ", "red"),
    ("what color", " is it?"),
]


def putting_bos_first(tokenizer):
    """As the tokenizers of Llama 3, Gemma 3 and Mistral do."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", pair="<bos> $A $B", special_tokens=[("<bos>", tokenizer.bos_token_id)]
    )


def putting_a_space_first(tokenizer):
    """As SentencePiece's tokenizers do, so a text alone has other tokens than behind another."""
    tokenizer.backend_tokenizer.normalizer = normalizers.Prepend(" ")


@pytest.mark.parametrize("template", [WRITES_BOS, CHAT, None])
@pytest.mark.parametrize("tokenizer_writes", [True, False])
@pytest.mark.parametrize("count", [1, 3])
def test_one_bos_as_the_library_writes_it(template, tokenizer_writes, count):
    model, processor = idefics3(template)
    if tokenizer_writes:
        putting_bos_first(processor.tokenizer)
    generator = TransformersGenerator(model, processor)
    asked = [prompts(3)[0]] * count  # of equal length
    inputs = generator._inputs(asked)
    assert len(inputs["pixel_values"]) == count
    for row, prompt in zip(inputs["input_ids"], asked, strict=True):
        written = (row == processor.tokenizer.bos_token_id).sum()
        assert written == (tokenizer_writes or template == WRITES_BOS)
        if template is not None:
            content = [{"type": "image", "image": _picture(prompt)}, {"type": "text", "text": prompt.text}]
            library = processor.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=True, add_generation_prompt=True, return_dict=True
            )
            assert row.tolist() == library["input_ids"][0]


def _picture(prompt):
    from mm1.processing.images import decode_image

    return decode_image(prompt.images[0].read())


def harness(tokenizer, context, continuation):
    """`_encode_pair` and the empty context of lm-evaluation-harness 0.4.13, told in other words."""
    if context == "":
        prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
        return [prefix], tokenizer.encode(continuation, add_special_tokens=False)
    spaces = context[len(context.rstrip()) :]
    before = tokenizer.encode(context.rstrip())
    return before, tokenizer.encode(context.rstrip() + spaces + continuation)[len(before) :]


@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("space", [True, False])
def test_likelihoods_have_the_harness_tokens(bos, space):
    model, processor = idefics3()
    tokenizer = processor.tokenizer
    if space:
        putting_a_space_first(tokenizer)
    if bos:
        putting_bos_first(tokenizer)
    generator = TransformersGenerator(model, processor)
    documents = [Document(f"p{n}", "text", (Text(context),)) for n, (context, _) in enumerate(PAIRS)]
    found = generator.log_likelihoods(documents, [continuation for _, continuation in PAIRS])
    for (context, continuation), likelihood in zip(PAIRS, found, strict=True):
        before, after = harness(tokenizer, context, continuation)
        before = before or [tokenizer.bos_token_id]
        assert after
        ids = torch.tensor([[*before, *after]])
        with torch.no_grad():
            rows = model(input_ids=ids).logits[0, len(before) - 1 : -1].log_softmax(-1)
        total = float(rows[range(len(after)), after].sum())
        assert likelihood.total == pytest.approx(total, rel=1e-4), context
        assert likelihood.total < 0
        assert likelihood.greedy == (rows.argmax(-1).tolist() == after)
    if space:  # the rule matters: alone, the continuation has a space of its own in front
        assert harness(tokenizer, *PAIRS[0])[1] != tokenizer.encode(PAIRS[0][1], add_special_tokens=False)


def test_a_continuation_that_the_contexts_last_token_swallows_is_scored():
    model, processor = idefics3()
    generator = TransformersGenerator(model, processor)
    context, continuation = "is it re", "d"
    assert len(processor.tokenizer.encode(context + continuation)) == len(processor.tokenizer.encode(context))
    (found,) = generator.log_likelihoods([Document("p", "text", (Text(context),))], [continuation])
    assert found.total < 0


@pytest.mark.parametrize("bos", [True, False])
def test_an_empty_prompt_works(bos):
    """Without BOS, EOS is what it starts from; without either there is a sentence."""
    model, processor = idefics3()
    if not bos:
        processor.tokenizer.bos_token = None
    generator = TransformersGenerator(model, processor)
    empty = Document("e", "text", ())
    likelihoods = generator.log_likelihoods([empty, empty], [" red", " is it red?"])
    assert all(likelihood.total < 0 for likelihood in likelihoods)
    assert all(isinstance(text, str) for text in generator.generate([empty, empty], max_new_tokens=3, stop=[]))
    processor.tokenizer.bos_token = processor.tokenizer.eos_token = None
    with pytest.raises(UserError, match="neither a BOS nor an EOS token"):
        generator.log_likelihoods([empty], [" red"])


def test_plain_on_the_command_line(squares, tmp_path):
    model, processor = idefics3(WRITES_BOS)
    putting_bos_first(processor.tokenizer)
    folder, task = tmp_path / "model", tmp_path / "squares.yaml"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    task.write_text(json.dumps({key: value for key, value in BASE.items() if key != "name"}))
    for option, adapter in (("--plain", "plain prompt"), ("--chat", "chat template")):
        arguments = ["--tasks", task, "--shots", 0, "--limit", 3, "--to", tmp_path / adapter]
        finished = mm1("evaluate", folder, *arguments, option)
        assert finished.returncode == 0, finished.stderr
        (file,) = (tmp_path / adapter).glob("*.json")
        result = json.loads(file.read_text())
        assert result["protocol"]["adapter"] == adapter
        assert result["errors"] == 0


@pytest.mark.parametrize(("template", "advice"), [(CHAT, "leave --plain out"), (None, "or a chat template")])
def test_plain_is_refused_where_nothing_stands_for_a_picture(template, advice):
    model, processor = idefics3(template)
    processor.image_token = None
    with pytest.raises(UserError, match=f"Idefics3Processor has no image token, .*{advice}"):
        TransformersGenerator(model, processor, chat=False)
    if template:
        assert isinstance(TransformersGenerator(model, processor), TransformersGenerator)
    broken = Document("b", "caption", (Image(b"no picture"),))
    model, processor = idefics3(CHAT)
    (answer,) = TransformersGenerator(model, processor).generate([broken], max_new_tokens=2, stop=[])
    assert isinstance(answer, UserError)
