"""Models fine-tuned on conversations: prompts as such, mixed resolution in shots, chains of thought."""

import json
from pathlib import Path

import pytest
import torch

from mm1.document import Document, Image, Text
from mm1.errors import UserError
from mm1.evaluate.caption import caption_image
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.evaluate.prompts import PromptStyle, build_prompt
from mm1.evaluate.run import evaluate_run
from mm1.evaluate.scoring import Scorer
from mm1.evaluate.settings import EvaluationSettings
from mm1.evaluate.tasks.item import Item
from mm1.evaluate.tasks.items import open_items
from mm1.evaluate.tasks.task import load_task, packaged_tasks
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from mm1.processing.tokenizer import train_tokenizer

from .conftest import COLORS, square
from .test_evaluate_model import BASE, Oracle, run, task

CHAT = PromptStyle(chat=True)
NO_SPACE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'][0]['text'] + eos_token }}{% endgeneration %}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}{{ '\n' }}{% endif %}"
    "{% endfor %}"
)


@pytest.fixture
def chat(processor):
    """The processor of a chat model that cuts pictures 2x2."""
    return build_processor(
        processor.tokenizer,
        image_size=16,
        tokens_per_image=4,
        resolution=TilingRule(grid="2x2"),
        chat_template=default_chat_template(),
    )


def item(number: int, **fields) -> Item:
    color = COLORS[number % 4]
    own = {"question": f"what color is number {number}?", **fields}
    return Item(f"i{number}", (square(color, dot=number),), own, (color,), number)


def test_a_prompt_is_the_beginning_of_the_conversation(chat):
    """Shots are rounds; the tokens are those that training on the conversation showed."""
    asked = task(chat_prompt="{image} {question}\nBe brief.")
    prompt = build_prompt(asked, item(2), [item(0), item(1)], CHAT)
    assert prompt.kind == "chat"
    assert prompt.meta["turns"] == ["user", "user", "assistant"] * 2 + ["user", "user"]
    texts = [part.text for part in prompt.parts if isinstance(part, Text)]
    assert texts[:2] == ["what color is number 0?\nBe brief.", "red"]
    whole = Document("w", "chat", (*prompt.parts, Text("blue")), {"turns": [*prompt.meta["turns"], "assistant"]})
    tokens, all_tokens = (chat.encode(d, close=d is whole).input_ids for d in (prompt, whole))
    assert all_tokens[: len(tokens)].tolist() == tokens.tolist()


def test_plain_prompts_are_as_they_were():
    asked = task(chat_prompt="{image} {question}")
    assert build_prompt(asked, item(2), [item(0)]) == build_prompt(task(), item(2), [item(0)], PromptStyle())
    assert PromptStyle().protocol() == {}


def test_the_papers_mixed_resolution():
    """3 of 8 shots and the query at 1344 (720 tokens each), 5 shots as one image: 4 x 720 + 5 x 144 = 3,600."""
    paper = build_processor(train_tokenizer(["red"], 300), 672, 144, resolution=TilingRule(grid="2x2"))
    prompt = build_prompt(task(), item(8), [item(n) for n in range(8)], PromptStyle(detailed_shots=3))
    lengths = paper.encode(prompt).image_lengths
    assert lengths.tolist() == [144] * 5 + [720] * 4
    assert lengths.sum() == 3600
    everything = paper.encode(build_prompt(task(), item(8), [item(n) for n in range(8)]))
    assert everything.image_lengths.sum() == 9 * 720  # would not fit into 4,096
    few = build_prompt(task(), item(8), [item(n) for n in range(2)], PromptStyle(detailed_shots=3))
    assert paper.encode(few).image_lengths.tolist() == [720] * 3
    none = build_prompt(task(), item(8), [item(n) for n in range(2)], PromptStyle(detailed_shots=0))
    assert paper.encode(none).image_lengths.tolist() == [144, 144, 720]


def test_scoring_a_chat_model(squares, tmp_path, model, chat):
    generator = MM1Generator(model, chat)
    plain, mixed = (
        run(generator, tmp_path / name, task(chat_prompt="{image} {question}"), shots=(2,), **options)[0]
        for name, options in (("plain", {}), ("mixed", {"detailed_shots": 0}))
    )
    assert plain["protocol"]["prompt"] == "{image} {question}"
    assert plain["protocol"]["prompt_style"] == "chat"
    assert "detailed_shots" not in plain["protocol"]
    assert mixed["protocol"]["detailed_shots"] == 0
    assert generator.images_encoded > 0
    assert all("Short answer" not in prediction["prompt"] for prediction in plain["predictions"])


def in_training(model, processor, prompt, words):
    """The log-likelihood of an answer by one forward pass over the conversation as training shows it."""
    turns = [*prompt.meta["turns"], "assistant"]
    whole = processor.encode(Document("w", "chat", (*prompt.parts, Text(words)), {"turns": turns}))
    pixels = processor.normalize(torch.from_numpy(processor.pixel_values(whole.images)))
    ids = torch.from_numpy(whole.input_ids)
    with torch.no_grad():
        logits = model(input_ids=ids[None], pixel_values=pixels).logits[0].double()
    logits[:, processor.image_token_id] = -torch.inf
    start = len(processor.encode(prompt, close=False).input_ids)
    end = int(whole.target.nonzero()[0][-1])  # the token that ends the answer
    by_token = logits.log_softmax(-1)
    return sum(float(by_token[place - 1, ids[place]]) for place in range(start, end))


@pytest.mark.parametrize("template", [default_chat_template(), NO_SPACE], ids=["space", "no space"])
def test_right_answers_of_a_chat_model_have_the_tokens_of_training(squares, tmp_path, model, processor, template):
    chat = build_processor(processor.tokenizer, image_size=16, tokens_per_image=4, chat_template=template)
    generator = MM1Generator(model, chat)
    asked = task(chat_prompt="{image} {question}")
    (result,) = run(generator, tmp_path, asked, shots=(0,), limit=6, right_answers=True)
    source = open_items(asked.data)
    items = {item.id: item for item in (source[row] for row in range(len(source)))}
    assert result["protocol"]["right_answers"] == "as turns"
    for prediction in result["predictions"]:
        prompt = build_prompt(asked, items[prediction["id"]], (), CHAT)
        (words,) = items[prediction["id"]].answers
        assert prediction["right_answer"] == pytest.approx(in_training(model, chat, prompt, words), rel=1e-4)


def test_a_task_in_the_form_of_pre_training(squares, tmp_path, model, chat):
    """One command scores both forms: a task says for itself that its prompts are plain."""
    results = run(MM1Generator(model, chat), tmp_path, task(), task(name="squares-plain", plain=True), shots=(2,))
    assert [result["protocol"].get("prompt_style") for result in results] == ["chat", None]
    assert load_task("pages-plain").plain
    assert not load_task("rounds").plain


def test_mixed_resolution_fits_where_full_does_not(squares, tmp_path, model, chat, monkeypatch):
    generator = MM1Generator(model, chat)
    monkeypatch.setattr(MM1Generator, "max_context", 125)
    with pytest.raises(UserError, match="with 2 shots needs"):
        run(generator, tmp_path / "full", task(chat_prompt="{image} {question}"), shots=(2,))
    run(generator, tmp_path / "mixed", task(chat_prompt="{image} {question}"), shots=(2,), detailed_shots=0)


def test_options_by_likelihood_stay_plain(squares, tmp_path, model, chat):
    """Text benchmarks score a text's continuation: no conversation is laid around it."""
    rows = [{"question": f"{n}?", "choices": ["red", "blue"], "label": 0} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data: dict[str, object] = {"file": str(tmp_path / "rows.jsonl"), "answers": "label", "answer_is": "index"}
    data |= {"options": "choices", "images": []}
    asked = task(
        data=data, prompt="{question}", likelihood="sum", shots={}, floors=[], metric="multiple_choice", also=[]
    )
    scorer = Scorer(MM1Generator(model, chat), asked, EvaluationSettings(), model={})
    assert not scorer.style.chat


def test_from_a_folder_as_the_command_does(squares, tmp_path, model, chat):
    folder = tmp_path / "run" / "model"
    model.save_pretrained(folder)
    chat.save_pretrained(folder)
    file = tmp_path / "squares.yaml"
    file.write_text(json.dumps({key: value for key, value in BASE.items() if key != "name"}))
    (result,) = evaluate_run(
        folder.parent, settings=EvaluationSettings(tasks=[str(file)], shots=[2], device="cpu", detailed_shots=1)
    )
    assert result["protocol"]["prompt_style"] == "chat"
    assert result["protocol"]["detailed_shots"] == 1
    (result,) = evaluate_run(
        folder.parent, settings=EvaluationSettings(tasks=[str(file)], shots=[2], device="cpu", plain=True)
    )
    assert "prompt_style" not in result["protocol"]


def test_chains_of_thought():
    """Shots show a field's reasoning before the answer; what is scored comes after the last `Answer:`."""
    asked = task(answer=" {why} Answer: {answer}", after="Answer:")
    prompt = build_prompt(asked, item(1), [item(0, why="It looks warm.")])
    assert prompt.parts[2] == Text(" It looks warm. Answer: red\n", target=False)
    turns = build_prompt(asked, item(1), [item(0, why="It looks warm.")], CHAT)
    assert turns.parts[2] == Text("It looks warm. Answer: red", target=False)
    with pytest.raises(UserError, match="has no field 'why'"):
        build_prompt(asked, item(1), [item(0)])


class Thinker(Oracle):
    """Thinks before it answers."""

    def generate(self, prompts, *, max_new_tokens, stop, advance=None):
        answers = super().generate(prompts, max_new_tokens=max_new_tokens, stop=stop)
        return [f"Answer: maybe no. But then Answer: {answer}" for answer in answers]


def test_the_answer_behind_the_thoughts_is_scored(squares, tmp_path):
    (result,) = run(Thinker("test", 20), tmp_path / "a", task(after="Answer:"), shots=(0,))
    assert result["score"] == 1.0
    assert result["protocol"]["after"] == "Answer:"
    (unscored,) = run(Thinker("test", 20), tmp_path / "b", task(), shots=(0,))
    assert unscored["score"] == 0.0
    (silent,) = run(Oracle("test", 20), tmp_path / "c", task(after="Answer:"), shots=(0,))
    assert silent["score"] == 1.0


def test_a_picture_put_into_words(tmp_path: Path, model, chat, monkeypatch):
    model.save_pretrained(tmp_path / "model")
    chat.save_pretrained(tmp_path / "model")
    (tmp_path / "red.png").write_bytes(square("red").read())
    seen: list[Document] = []
    generate = MM1Generator.generate

    def looking(self, asked, **options):
        seen.extend(asked)
        return generate(self, asked, **options)

    monkeypatch.setattr(MM1Generator, "generate", looking)
    assert isinstance(caption_image(tmp_path, tmp_path / "red.png"), str)
    assert isinstance(caption_image(tmp_path, tmp_path / "red.png", "what color is it?"), str)
    assert [document.kind for document in seen] == ["chat", "chat"]
    asked = seen[1].parts[1]
    assert isinstance(asked, Text)
    assert asked.text == "what color is it?"
    assert isinstance(seen[0].parts[0], Image)


def test_packaged_tasks_ask_chat_models_as_fine_tuning_did():
    """LLaVA-1.5's suffixes, which the recipe `sft` trains with."""
    suffixes = (
        "Answer the question using a single word or phrase.",
        "Answer with the option's letter from the given choices directly.",
        "Provide a one-sentence caption for the provided image.",
    )
    asked = {name: load_task(name).chat_prompt for name in packaged_tasks()}
    assert sum(str(prompt).endswith(suffixes) for prompt in asked.values()) >= 12
    assert asked["find"] == "{image} {question}"
