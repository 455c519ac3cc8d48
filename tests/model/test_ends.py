"""Generation ends where the chat template ends an answer, in a new process too."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from mm1.document import Document, Text
from mm1.evaluate.models.mm1 import MM1Generator
from mm1.model import build_model
from mm1.model.ends import end_with_turns
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.recipe import ModelRecipe
from tests.model.saved.make_saved import CHATML
from tests.processing.sample_templates import HEADERS, TURNS
from tests.processing.sample_tokenizers import marked

CHAT = Document("c", "chat", (Text("a red bus?", target=False), Text("a red bus.")), {"turns": ["user", "assistant"]})
QUESTION = Document("c", "chat", CHAT.parts[:1], {"turns": ["user"]})
RECIPE = ModelRecipe.model_validate(
    {
        "vision": {"image_size": 16, "patch_size": 8, "hidden_size": 8, "num_layers": 1, "num_heads": 2},
        "connector": {"kind": "average_pool", "num_tokens": 4},
        "language_model": {"hidden_size": 32, "num_layers": 2, "num_heads": 4},
    }
)
_GENERATE = """
import json, sys
import mm1
from transformers import AutoModelForImageTextToText, AutoProcessor, pipeline
messages = [{"role": "user", "content": [{"type": "text", "text": "a red bus?"}]}]
found = []
for folder in sys.argv[1:]:
    processor, model = (auto.from_pretrained(folder) for auto in (AutoProcessor, AutoModelForImageTextToText))
    inputs = processor.apply_chat_template(
        messages, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    words = model.generate(**inputs, max_new_tokens=30)[0, inputs["input_ids"].shape[1] :].tolist()
    (said,) = pipeline("image-text-to-text", model=folder)(text=messages, max_new_tokens=30, return_full_text=False)
    found.append([words, said["generated_text"]])
print(json.dumps(found))
"""


def trained(processor: MM1Processor) -> Any:
    """Return a model that knows one conversation by heart, and goes on with it for ever."""
    tokenizer = processor.tokenizer
    model = build_model(
        RECIPE,
        vocab_size=len(tokenizer),
        image_token_id=processor.image_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    twice = Document("c", "chat", CHAT.parts * 3, {"turns": ["user", "assistant"] * 3})
    ids = torch.from_numpy(processor.encode(twice).input_ids)[None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        optimizer.zero_grad()
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    return model


CASES = [
    (default_chat_template(), True, "<eos>"),
    (CHATML, True, "<|im_end|>"),
    (CHATML, False, "<|im_end|>"),
    (HEADERS, True, "<|eot_id|>"),
    (TURNS, True, "</turn>"),
]
"""A template, whether its marks are special tokens, and the one that ends an answer."""


def test_answers_end(tmp_path: Path) -> None:
    processors, folders = [], []
    for number, (template, special, _) in enumerate(CASES):
        processor = build_processor(marked(special), 16, 4, chat_template=template)
        model = trained(processor)
        end_with_turns(model, processor)
        processors.append(processor)
        folders.append(str(tmp_path / str(number)))
        model.save_pretrained(folders[-1])
        processor.save_pretrained(folders[-1])
        (answer,) = MM1Generator(model, processor).generate([QUESTION], max_new_tokens=30, stop=[])
        assert answer == "a red bus."
    done = subprocess.run([sys.executable, "-c", _GENERATE, *folders], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    for (_, _, end), processor, (words, said) in zip(CASES, processors, found, strict=True):
        assert words.index(processor.tokenizer.convert_tokens_to_ids(end)) == len(words) - 1
        assert said.removesuffix(end).strip() == "a red bus."


def test_a_models_own_ends_stay() -> None:
    processor = build_processor(marked(), 16, 4, chat_template=CHATML)
    model: Any = build_model(RECIPE, vocab_size=len(processor.tokenizer), image_token_id=3, eos_token_id=2)
    end = processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = 7
    for _ in range(2):
        end_with_turns(model, processor)
        assert model.generation_config.eos_token_id == [7, 2, end]
    processor.chat_template = None
    model.generation_config.eos_token_id = None
    end_with_turns(model, processor)
    assert model.generation_config.eos_token_id == 2
