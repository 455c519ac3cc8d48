"""Makes the saved models beside it, with the code whose format they show: mm1 0.1 (commit e14b6df).

    PYTHONPATH=OLD/src python tests/model/saved/make_saved.py

Three folders, each a tiny model with its processor, as that version wrote them:

- `plain`: pre-trained from scratch, pictures padded and cut;
- `chat`: with a chat template whose answers end with a token of their own;
- `decoder`: pre-trained around a decoder whose tokenizer brings a template, which that version saved with it.

`expected.json` holds what that version made of a document.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch

from mm1.document import Document, Text
from mm1.model import build_model
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ModelRecipe, ResolutionRecipe

HERE = Path(__file__).parent
TEXTS = ["a red bus on a street", "What is this? user assistant"]
CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}"
    "{% if message['role'] == 'assistant' %}"
    "{% generation %}{{ message['content'][0]['text'] + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
INSTRUCT = (
    "{% for m in messages %}{{ '[' + m['role'] + '] ' + m['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]' }}{% endif %}"
)
RECIPE = {
    "vision": {"image_size": 8, "patch_size": 4, "hidden_size": 8, "num_layers": 1, "num_heads": 2},
    "connector": {"kind": "average_pool", "num_tokens": 4},
    "language_model": {"hidden_size": 8, "num_layers": 1, "num_heads": 2},
}


def processors() -> dict[str, MM1Processor]:
    """Return the processors by the names of their folders."""
    chat, decoder = train_tokenizer(TEXTS * 5, 310), train_tokenizer(TEXTS * 5, 310)
    chat.add_special_tokens({"additional_special_tokens": ["<image>", "<|im_start|>", "<|im_end|>"]})
    decoder.chat_template = INSTRUCT
    return {
        "plain": build_processor(
            train_tokenizer(TEXTS * 5, 310), 8, 4, resolution=ResolutionRecipe(fit="pad", grid="1x2")
        ),
        "chat": build_processor(chat, 8, 4, chat_template=CHATML),
        "decoder": build_processor(decoder, 8, 4),
    }


def main() -> None:
    """Write the folders."""
    fingerprint = importlib.import_module("mm1.data.index").tokenizer_fingerprint  # where it was then
    expected: dict[str, dict[str, Any]] = {}
    for name, processor in processors().items():
        tokenizer = processor.tokenizer
        expected[name] = {
            "ids": processor.encode(Document("d", "text", (Text(" a red bus"),))).input_ids.tolist(),
            "fingerprint": fingerprint(tokenizer),
            "layout": processor.chat_layout.fingerprint if processor.chat_layout else None,
        }
        model = build_model(
            ModelRecipe.model_validate(RECIPE),
            vocab_size=len(tokenizer),
            image_token_id=processor.image_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        torch.nn.Module.to(model, torch.bfloat16)
        model.save_pretrained(HERE / name)
        processor.save_pretrained(HERE / name)
    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main()
