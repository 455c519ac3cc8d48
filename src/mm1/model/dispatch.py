"""Expert parallelism: tokens go to the ranks that hold their experts, and come back.

    tokens of a rank --sort by expert--> all-to-all --> experts held there --all-to-all--> sort back, weigh, add up

Every rank of a group holds an equal part of a layer's experts, the first rank the first ones. No token is dropped and
none is padded: each rank sends as many as the routers say. The sizes of what is sent depend on values on the device, so
the host reads them once per layer and pass, as torchtitan's dispatcher does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.distributed._functional_collectives import all_to_all_single, wait_tensor


@dataclass(frozen=True)
class ExpertRanks:
    """The ranks over which the experts of a layer are spread.

    Attributes:
        group: The ranks.
        experts: Experts of a layer, on all ranks; a multiple of the number of ranks.
    """

    group: dist.ProcessGroup
    experts: int

    @property
    def held(self) -> int:
        """Experts that each rank holds."""
        return self.experts // self.group.size()

    def compute(
        self,
        tokens: torch.Tensor,
        choices: torch.Tensor,
        weights: torch.Tensor,
        held: Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor],
    ) -> torch.Tensor:
        """Send tokens to their experts and return what the experts make of them; all ranks must call this.

        Args:
            tokens: `(T, D)`; each rank has its own, and its own T.
            choices: `(T, k)` int64, the experts of each token.
            weights: `(T, k)`, what each expert counts.
            held: Computes the experts that this rank holds, from tokens `(R, D)`, the number of each one's expert here
                `(R, 1)`, and weights `(R, 1)`.

        Returns:
            `(T, D)`.
        """
        top_k, experts = choices.shape[1], choices.flatten()
        order = experts.argsort(stable=True)
        leaving = experts.new_zeros(self.experts).index_add(0, experts, torch.ones_like(experts))
        # Per rank that tokens come from, how many come for each of the experts here.
        coming = wait_tensor(all_to_all_single(leaving, None, None, self.group))
        by_rank = leaving.view(-1, self.held).sum(1), coming.view(-1, self.held).sum(1)
        there, here = read_counts(*by_rank, len(experts))
        arrived = self._exchange(tokens[order // top_k], here, there)
        if sum(here):
            places = torch.arange(sum(here), device=tokens.device)
            number = torch.searchsorted(coming.cumsum(0), places, right=True) % self.held
            made = held(arrived, number[:, None], weights.new_ones(len(arrived), 1))
        else:  # the experts take part with a token that is none, so that they have gradients, of 0
            made = held(tokens.new_zeros(1, tokens.shape[1]), experts.new_zeros(1, 1), weights.new_ones(1, 1))[:0]
            made = made + arrived
        back = self._exchange(made, there, here)
        places = torch.empty_like(order).index_copy(0, order, torch.arange(len(order), device=order.device))
        weighed = back[places].view(*choices.shape, -1) * weights[..., None]
        return weighed.sum(1).to(tokens.dtype)

    def _exchange(self, rows: torch.Tensor, received: list[int], sent: list[int]) -> torch.Tensor:
        """Return the rows that the other ranks send here; of gradients the other way round."""
        return wait_tensor(all_to_all_single(rows, received, sent, self.group))


def read_counts(leaving: torch.Tensor, coming: torch.Tensor, total: int) -> tuple[list[int], list[int]]:
    """Return how many tokens go to each rank and how many come from each; the host waits for the device.

    Args:
        leaving: `(ranks,)`.
        coming: `(ranks,)`.
        total: The sum of `leaving`, which a rehearsal divides.
    """
    there, here = torch.stack([leaving, coming]).to("cpu").tolist()
    return there, here
