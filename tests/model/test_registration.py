"""What `import mm1` alone promises, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mm1.processing.processor import build_processor
from mm1.processing.tokenizer import train_tokenizer

from .builders import tiny_model

LOAD = """
import sys
import mm1
from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor
for auto in (AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor):
    print(type(auto.from_pretrained(sys.argv[1])).__name__)
"""
# The configurations that `transformers` knows, asked for as the last thing, so that asking imports nothing of MM1.
KNOWN = """
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
print("mm1" in CONFIG_MAPPING)
"""


def python(code: str, *arguments: object) -> list[str]:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return done.stdout.split()


def test_import_is_enough_for_the_auto_classes(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer = train_tokenizer(["a red circle", "a blue square"] * 20, 400)
    build_processor(tokenizer, image_size=16, tokens_per_image=4).save_pretrained(tmp_path)
    assert python(LOAD, tmp_path) == ["MM1Config", "MM1Model", "MM1ForConditionalGeneration", "MM1Processor"]


@pytest.mark.parametrize(
    "imports",
    [
        "import mm1\nfrom transformers import AutoConfig",
        "from transformers import AutoConfig\nimport mm1",
        # MM1's own module loads transformers, and not mm1.model.
        "from mm1.processing.processor import MM1Processor\nfrom transformers import AutoConfig",
    ],
)
def test_the_order_of_imports_does_not_matter(imports: str) -> None:
    assert python(imports + KNOWN) == ["True"]


def test_the_import_alone_is_light() -> None:
    assert python("import sys, mm1\nprint(*{'transformers', 'torch', 'numpy', 'pydantic'} & sys.modules.keys())") == []
