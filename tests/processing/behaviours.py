"""All that a processor does, as numbers that can be compared between processes."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from mm1.document import Document, Image, Text
from mm1.processing.processor import MM1Processor

_LOAD = """
import json, sys
import mm1
from transformers import AutoProcessor
from tests.processing.behaviours import behaviours
found = []
for folder in sys.argv[1:]:
    processor = AutoProcessor.from_pretrained(folder)
    found.append(behaviours(processor))
    processor.save_pretrained(folder + "-again")
print(json.dumps(found))
"""


def pictures() -> list[PILImage.Image]:
    """Return two pictures of noise, one lying and one standing."""
    random = np.random.default_rng(0)
    return [PILImage.fromarray(random.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((20, 50), (40, 24))]


def encoded(picture: PILImage.Image) -> Image:
    """Return a picture as documents have it."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return Image(stream.getvalue())


def behaviours(processor: Any) -> dict[str, Any]:
    """Return what a processor does with texts, pictures and conversations, and what it says of itself."""
    assert isinstance(processor, MM1Processor)
    one, two = pictures()
    tokenizer = processor.tokenizer
    texts = ["<image> a red bus", "<image> What is this? user assistant"]
    batch = {"text": texts, "images": [[one], [two]]}
    document = Document("d", "interleaved", (encoded(one), Text(" red\n"), encoded(two), Text(" two")))
    does: dict[str, Any] = {
        "padded": processor(**batch, padding=True),
        "padded to a multiple": processor(**batch, padding=True, pad_to_multiple_of=8),
        "padded to a length": processor(text=texts[0][7:], padding="max_length", max_length=32),
        "cut": processor(text="a red bus on a street", truncation=True, max_length=4),
        "as it is": processor(text="a red bus on a street"),
        "text": processor(text="a red bus"),
        "text with BOS": processor(text=f"{tokenizer.bos_token}a red bus"),
        "some with BOS": processor(text=[f"{tokenizer.bos_token}a red bus", "a red bus"]),
        "text without BOS": processor(text="a red bus", add_special_tokens=False),
        "the tokenizer's text": tokenizer("a red bus"),
        "the tokenizer's batch": tokenizer(["a red bus", "a"], padding=True),
        "a document": processor.encode(document).input_ids,
        "a document's pixels": processor.pixel_values(document.images),
        "squares": processor(text="<image>", images=one, do_rescale=False, do_normalize=False)["pixel_values"],
        "decoded": tokenizer.decode(processor(text="a red bus")["input_ids"][0], skip_special_tokens=True),
        "template": processor.chat_template,
        "the tokenizer's template": tokenizer.chat_template,
        "takes turns": processor.takes_turns,
        "ends": processor.end_token_ids,
        "image token": [processor.image_token, processor.image_token_id, processor.tokens_per_image],
        "image size": processor.image_size,
        "resolution": dict(processor.resolution),
        "sides": [tokenizer.padding_side, tokenizer.truncation_side],
        "special tokens": dict(tokenizer.special_tokens_map),
        "longest": tokenizer.model_max_length,
        "inputs": processor.model_input_names,
        "vocabulary": len(tokenizer),
        "image processor": processor.image_processor.to_dict(),
    }
    if processor.takes_turns:
        messages = [
            {"role": "user", "content": [{"type": "image", "image": one}, {"type": "text", "text": "What is this?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "a bus"}]},
        ]
        asked = processor.apply_chat_template(messages[:1], tokenize=True, return_dict=True, add_generation_prompt=True)
        does["asked"] = asked
        does["conversation"] = processor.apply_chat_template(messages, tokenize=True)
        does["laid out"] = processor.apply_chat_template(messages)
        does["the tokenizer's conversation"] = tokenizer.apply_chat_template(messages, tokenize=False)
    plain: dict[str, Any] = json.loads(json.dumps(does, default=_plain))
    return plain


def after_loading(folders: list[Path]) -> list[dict[str, Any]]:
    """Return the behaviours of processors that a new process loads; it saves each again beside itself."""
    command = [sys.executable, "-c", _LOAD, *map(str, folders)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def _plain(value: Any) -> Any:
    """Return what JSON can hold; many numbers as a hash."""
    if isinstance(value, np.ndarray):
        if value.size < 100:
            return value.tolist()
        rounded = np.ascontiguousarray(np.round(value, 4))
        return [str(value.dtype), value.shape, base64.b64encode(hashlib.sha256(rounded.tobytes()).digest()).decode()]
    if hasattr(value, "data"):  # the library's batches
        return dict(value.data)
    return str(value)
