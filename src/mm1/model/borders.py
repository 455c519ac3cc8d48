"""The documents' borders in packed rows, as kernels of attention take them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedConfig

BORDERS = ("cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
"""The library's names of a model's arguments that tell where documents begin."""


@dataclass(frozen=True)
class Borders:
    """Where documents begin in packed rows.

    Attributes:
        cu_seq_lens: `(documents + 1,)` int32, where each begins in the flattened rows and the last ends. It may be
            padded with the end, which means documents of no tokens.
        longest: Tokens of the longest document.
    """

    cu_seq_lens: torch.Tensor
    longest: int

    @staticmethod
    def of(position_ids: torch.Tensor) -> Borders:
        """Find the borders; on a GPU this waits for the device.

        Args:
            position_ids: See `document_lengths`.
        """
        lengths = document_lengths(position_ids)
        ends = torch.tensor([0, *lengths], dtype=torch.int32).cumsum(0, dtype=torch.int32)
        return Borders(ends.to(position_ids.device), max(lengths, default=0))

    def padded(self, multiple: int) -> Borders:
        """Return the same borders, their number filled up to a multiple with the end."""
        missing = -len(self.cu_seq_lens) % multiple
        return Borders(torch.cat([self.cu_seq_lens, self.cu_seq_lens[-1:].expand(missing)]), self.longest)

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of the model, by the library's names."""
        return dict(zip(BORDERS, (self.cu_seq_lens, self.cu_seq_lens, self.longest, self.longest), strict=True))


def document_lengths(position_ids: torch.Tensor) -> list[int]:
    """Return the lengths of the documents in packed rows, one row after another.

    Args:
        position_ids: `(B, L)`; a document begins wherever they do not go up by one. A run of documents of one token
            each, as padding is, counts as one document: what they output predicts nothing.

    Returns:
        Lengths that add up to `B * L`; no document goes over a row's end.
    """
    start = torch.ones_like(position_ids, dtype=torch.bool)
    start[:, 1:] = position_ids.diff(dim=1) != 1
    padding = start.clone()
    padding[:, :-1] &= start[:, 1:]  # a document of one token: the next one begins at once
    start[:, 1:] &= ~(padding[:, 1:] & padding[:, :-1])
    places = start.flatten().nonzero().squeeze(1)
    return places.diff(append=places.new_tensor([start.numel()])).tolist()


def needs_borders(config: PreTrainedConfig) -> bool:
    """Whether a decoder's attention would cross borders that it is not given: flash attention over several rows."""
    return "flash" in str(config._attn_implementation)


def has_windows(config: PreTrainedConfig) -> bool:
    """Whether some layers of a decoder attend to near tokens alone."""
    return set(getattr(config, "layer_types", None) or ()) - {"full_attention"} != set()
