"""Where generation ends: at EOS, and at whatever ends an answer in the chat template."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from mm1.processing.processor import MM1Processor


def end_with_turns(model: PreTrainedModel, processor: MM1Processor) -> None:
    """Let `generate` end where an answer does; it is saved with the model, in generation_config.json.

    Args:
        model: Its own ends stay.
        processor: Of the model.
    """
    config: Any = model.generation_config
    own = config.eos_token_id
    own = [] if own is None else own if isinstance(own, list) else [own]
    ends = list(dict.fromkeys([*own, *processor.end_token_ids]))
    config.eos_token_id = ends if len(ends) > 1 else ends[0]
