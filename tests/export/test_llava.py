"""`mm1 export --to llava`: the folder, loaded by LLaVA's own classes, says the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration, LlavaProcessor

from mm1.errors import UserError
from mm1.export.check import compare
from mm1.export.export import export_model
from mm1.processing.chat import default_chat_template
from mm1.processing.processor import build_processor
from mm1.processing.tiles import TilingRule
from tests.model.builders import tiny_config, tiny_model
from tests.processing.sample_tokenizers import own

from .use import use


def saved(folder: Path, rule: TilingRule | None = None, **changes: Any) -> Path:
    """A model of LLaVA's shape but for the changes."""
    shape: dict[str, Any] = {
        "connector": "mlp",
        "image_seq_length": 16,
        "connector_hidden_size": None,
        "vision_final_norm": False,
    }
    shape |= changes
    processor = build_processor(
        own(), 16, shape["image_seq_length"], chat_template=default_chat_template(), resolution=rule
    )
    text = tiny_config().text_config
    text.vocab_size = len(processor.tokenizer)
    tiny_model(text_config=text, image_token_id=processor.image_token_id, **shape).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def test_everything_is_said_alike(tmp_path: Path) -> None:
    model = saved(tmp_path / "model")
    folder, found = export_model(str(model), tmp_path / "llava", "llava")
    assert found is not None
    assert float(found.split("logits: ")[1].split()[0]) < 1e-4
    assert isinstance(AutoProcessor.from_pretrained(folder), LlavaProcessor)
    assert isinstance(AutoModelForImageTextToText.from_pretrained(folder), LlavaForConditionalGeneration)
    wanted, theirs = use(model), use(folder)
    for name in ("inputs.input_ids", "chat.input_ids", "words", "beams", "pipeline"):
        assert torch.equal(theirs[name], wanted[name]), name
    for name in ("inputs.pixel_values", "chat.logits"):
        torch.testing.assert_close(theirs[name], wanted[name], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (TilingRule(grid="2x2"), {}, "cut or padded"),
        (TilingRule(fit="pad"), {}, "cut or padded"),
        (None, {"connector": "average_pool", "image_seq_length": 4}, "connector is average_pool, not mlp"),
        (None, {"moe_num_experts": 4}, "sparse"),
    ],
)
def test_what_the_format_has_no_place_for(
    tmp_path: Path, rule: TilingRule | None, changes: dict[str, Any], message: str
) -> None:
    model = saved(tmp_path / "model", rule, **changes)
    with pytest.raises(UserError, match=message):
        export_model(str(model), tmp_path / "llava", "llava")
    assert [file.name for file in tmp_path.iterdir()] == ["model"]


def test_a_model_of_other_logits_is_not_written() -> None:
    logits = torch.tensor([[3.0, -4.0]])
    assert "4.0e+00" in compare(logits + 1e-4, logits)
    for other in (logits + 0.1, logits * float("nan"), logits[:, :1]):
        with pytest.raises(UserError, match="logits"):
            compare(other, logits)
