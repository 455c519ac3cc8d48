"""What `import mm1` alone promises, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import mm1
from transformers import AutoConfig, AutoModelForImageTextToText
config = AutoConfig.for_model("mm1")
print(type(config).__name__, AutoModelForImageTextToText._model_mapping[type(config)].__name__)
"""


def test_import_is_enough_for_the_auto_classes() -> None:
    result = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["MM1Config", "MM1ForConditionalGeneration"]
