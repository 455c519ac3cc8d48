"""What `import mm1` alone promises, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer

from .builders import tiny_model

SCRIPT = """
import sys
import mm1
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
for auto in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor):
    print(type(auto.from_pretrained(sys.argv[1])).__name__)
"""


def test_import_is_enough_for_the_auto_classes(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer = train_tokenizer(["a red circle", "a blue square"] * 20, 400)
    build_processor(tokenizer, image_size=16, tokens_per_image=4).save_pretrained(tmp_path)
    result = subprocess.run([sys.executable, "-c", SCRIPT, tmp_path], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["MM1Config", "MM1Model", "MM1ForConditionalGeneration", "MM1Processor"]
