"""A check before training: attention stays inside the documents of packed rows, on this device and in this precision.

A kernel that drops the mask trains without a complaint, and worse. So a small packed batch is run once, and its
documents once more, alone; their logits must be equal.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mm1.errors import UserError
from mm1.model import MM1ForConditionalGeneration
from mm1.model.borders import Borders

DOCUMENTS = ((7, 9, 5), (11, 6))
"""Tokens of the documents in the rows of the batch; the rest of a row is padding."""
LENGTH = 24
TOLERANCE = {None: 1e-3, torch.bfloat16: 0.05, torch.float16: 0.05}
"""Largest difference of a document's logits, relative to their own size, by precision. Attention across borders changes
the logits of a fresh model by a third to all of their size."""


@torch.no_grad()
def check_borders(model: MM1ForConditionalGeneration, attention: str, autocast: torch.dtype | None) -> None:
    """Check that the documents of packed rows don't see each other.

    All ranks must call this. Of a document's tokens the median counts, since a router may choose another expert after
    a rounding.

    Args:
        model: The model as it is trained.
        attention: The name of the decoder's attention, for the message.
        autocast: The precision of matrix products.

    Raises:
        UserError: If they do.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        # Compiled blocks would be compiled for these shapes too.
        with torch.compiler.set_stance("force_eager"), torch.autocast(device.type, autocast, enabled=bool(autocast)):
            packed = _logits(model, DOCUMENTS, device)
            alone = [
                _logits(model, [[n] if i == number else [1] for i in range(len(DOCUMENTS))], device)[number, :n]
                for number, row in enumerate(DOCUMENTS)
                for n in row
            ]
    finally:
        model.train(training)
    together = [part for number, row in enumerate(DOCUMENTS) for part in packed[number, : sum(row)].split(row)]
    worst = max(_difference(one, other) for one, other in zip(together, alone, strict=True))
    if not worst <= TOLERANCE[autocast]:
        raise UserError(
            f"model.language_model.attention: {attention} lets the documents of a sequence see each other on {device} "
            f"(their logits differ from those of the documents alone by {worst:.0%}): set another one, such as sdpa"
        )


def _logits(model: MM1ForConditionalGeneration, rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Return the logits of packed rows of made-up documents, `(rows, LENGTH, words)` in float32.

    A document of one length has the same tokens wherever it stands.
    """
    words = model.config.text_config.vocab_size
    input_ids = torch.zeros(len(rows), LENGTH, dtype=torch.long)
    position_ids = torch.zeros_like(input_ids)
    for number, row in enumerate(rows):
        end = 0
        for length in row:
            tokens = torch.randint(words, (length,), generator=torch.Generator().manual_seed(length))
            tokens[tokens == model.config.image_token_id] += 1 if model.config.image_token_id + 1 < words else -1
            input_ids[number, end : end + length] = tokens
            position_ids[number, end : end + length] = torch.arange(length)
            end += length
    borders = Borders.of(position_ids)
    arguments = Borders(borders.cu_seq_lens.to(device), borders.longest).arguments()
    output = model(input_ids=input_ids.to(device), position_ids=position_ids.to(device), use_cache=False, **arguments)
    logits: torch.Tensor = output.logits
    return logits.float()


def _difference(one: torch.Tensor, other: torch.Tensor) -> float:
    """Return the median over tokens of how much logits differ, relative to their spread."""
    spread = other - other.mean(-1, keepdim=True)
    return float(((one - other).norm(dim=-1) / spread.norm(dim=-1).clamp_min(1e-12)).median())
