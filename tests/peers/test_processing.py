"""The library's common tests of processors: pictures squashed into one square, and pictures cut into sub-images."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as PILImage

from mm1.processing.chat import default_chat_template
from mm1.processing.processor import MM1Processor, build_processor
from mm1.processing.tokenizer import train_tokenizer
from mm1.recipe import ResolutionRecipe
from tests.peers.library import common

processing = common("test_processing_common")
ProcessorTests: Any = processing.ProcessorTesterMixin

TEXTS = ["words of a prompt, pictures and answers", "what does the picture show? a red bus on a street"]
PICTURES = tempfile.TemporaryDirectory()


def setUpModule() -> None:
    """Write pictures, in place of those that the tests would load from the network."""
    random = np.random.default_rng(0)
    files = []
    for number in range(2):
        files.append(str(Path(PICTURES.name, f"{number}.png")))
        PILImage.fromarray(random.integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(files[-1])
    processing.MODALITY_INPUT_DATA["images"] = files
    processing.url_to_local_path = lambda url, *_, **__: files[0]


def tearDownModule() -> None:
    PICTURES.cleanup()


class _ProcessorTests(ProcessorTests):
    processor_class = MM1Processor
    image_token = "<image>"

    @classmethod
    def _setup_tokenizer(cls) -> Any:
        return build_processor(train_tokenizer(TEXTS, 320), 16, 4).tokenizer

    @classmethod
    def _setup_image_processor(cls) -> Any:
        return build_processor(train_tokenizer(TEXTS, 320), 16, 4).image_processor

    def test_side_of_padding_is_kept(self) -> None:
        """Prompts of a batch are continued at their right end, by a processor read from its folder too."""
        assert self.get_processor().tokenizer.padding_side == "left"


class SquashProcessorTest(_ProcessorTests, unittest.TestCase):
    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        return {"tokens_per_image": 4, "chat_template": default_chat_template()}


class CutProcessorTest(_ProcessorTests, unittest.TestCase):
    @staticmethod
    def prepare_processor_dict() -> dict[str, Any]:
        rule = ResolutionRecipe(grid="2x2").model_dump()
        return {"tokens_per_image": 4, "chat_template": default_chat_template(), "resolution": rule}
