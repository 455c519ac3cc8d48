"""How a model's weights lie on the GPUs of a run, and the bytes that these send each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from mm1.model import MM1ForConditionalGeneration
from mm1.model.parts import blocks_of
from mm1.model.sharded_start import Share
from mm1.model.sizes import parameters_by_part
from mm1.model.sparse import sparse_blocks
from mm1.recipe import Recipe


@dataclass(frozen=True)
class Weights:
    """Numbers of parameters on a number of GPUs that share one copy.

    Attributes:
        shard: The GPUs.
        all: All parameters.
        trained: Parameters that are not frozen.
        experts: Parameters of all experts.
        expert_ranks: GPUs over which the experts of a layer are spread; 1: they are gathered as other weights are.
        routed: Numbers that a token sends to its experts' GPUs in a forward pass: hidden size times experts per token
            times sparse layers. They come back, and both again in the backward pass.
        root: Parameters outside of blocks, which are gathered for the whole forward pass.
        largest: Parameters of the largest two neighbouring blocks, as far as they are gathered.
        block: Parameters of the largest block, as far as they are gathered.
        largest_parameter: Size of the largest parameter that is not frozen.
        sums: Rows and columns of all matrices plus lengths of all vectors, without frozen ones: Adafactor's state.
        adafactor: Whether the optimizer is Adafactor; else it is AdamW.
        kept: Whether blocks stay gathered until the backward pass.
    """

    shard: int
    all: int
    trained: int
    experts: int
    expert_ranks: int
    routed: int
    root: int
    largest: int
    block: int
    largest_parameter: int
    sums: int
    adafactor: bool
    kept: bool

    @staticmethod
    def of(model: MM1ForConditionalGeneration, recipe: Recipe, shard: int) -> Weights:
        """Return the numbers of a recipe's model, as it is trained (see `mm1.scaling.subject.as_trained`).

        Raises:
            UserError: If its experts can't be spread as the recipe says.
        """
        parts = parameters_by_part(model)
        parts["language_model"] += parts.pop("embeddings")
        trained = sum(count for part, count in parts.items() if part not in recipe.train.freeze)
        ranks = Share(0, shard, recipe.train.expert_parallel).expert_ranks(model.config.moe_num_experts)
        sparse = sparse_blocks(model.model.language_model)
        experts = {id(p) for block in sparse for p in block.experts.parameters()}
        towers = [model.model.vision_tower, model.model.language_model]
        sizes = [
            [sum(p.numel() // (ranks if id(p) in experts else 1) for p in block.parameters()) for block in blocks]
            for blocks in map(blocks_of, towers)
        ]
        pairs = [sum(pair) for tower in sizes for pair in zip(tower, [*tower[1:], 0], strict=True)]
        parameters = [p for p in model.parameters() if p.requires_grad]
        if recipe.train.lora is not None:
            trained = sum(p.numel() for p in parameters)
        in_blocks = sum(p.numel() for tower in towers for block in blocks_of(tower) for p in block.parameters())
        config = model.config
        return Weights(
            shard=shard,
            all=sum(parts.values()),
            trained=trained,
            experts=sum(p.numel() for block in sparse for p in block.experts.parameters()),
            expert_ranks=ranks,
            routed=len(sparse) * config.moe_top_k * config.text_config.hidden_size,
            root=sum(parts.values()) - in_blocks,
            largest=max(pairs),
            block=max(size for tower in sizes for size in tower),
            largest_parameter=max((p.numel() for p in parameters), default=0),
            sums=sum(
                p.numel() // p.shape[-1] + p.numel() // p.shape[-2] if p.ndim > 1 else p.numel() for p in parameters
            ),
            adafactor=recipe.train.optimizer == "adafactor",
            kept=not recipe.train.reshard_after_forward,
        )

    @property
    def optimizer_bytes(self) -> float:
        """Bytes of the optimizer's state on one GPU: AdamW's is sharded, Adafactor's is not."""
        return 4 * self.sums if self.adafactor else 8 * self.trained / self.shard

    @property
    def update_bytes(self) -> float:
        """Bytes of a step's temporaries on one GPU.

        torch's fused AdamW has none. Adafactor updates one parameter at a time (`mm1.train.adafactor.Adafactor`): it
        gathers the parameter and its gradient, and allocates two tensors of this size.
        """
        return 16 * self.largest_parameter if self.adafactor else 0.0

    @property
    def gathered_bytes(self) -> float:
        """Bytes of gathered bfloat16 weights, and of gradients before they are reduced, on one GPU.

        The root's weights, those of two blocks (if blocks are kept, of all, without experts), the root's gradient, and
        one block's in float32.
        """
        blocks = max(self.largest, self.all - self.root - self.experts) if self.kept else self.largest
        return 2 * (self.root + blocks) + 2 * self.root + 4 * self.block


class Sent(NamedTuple):
    """Bytes that one GPU sends in a step.

    Attributes:
        gathered: Gathered and reduced among the GPUs that share a copy.
        exchanged: Tokens to experts, and back.
        between_replicas: Reduced between copies.
    """

    gathered: float
    exchanged: float
    between_replicas: float


def bytes_sent(weights: Weights, replicas: int, micro_batches: int, tokens: int, recompute: bool) -> Sent:
    """Return the bytes that one GPU sends in a step.

    A ring moves (n - 1) / n of the gathered or reduced data past every GPU. Per micro-batch FSDP gathers bfloat16
    weights before the forward and the backward pass (the root's and kept ones once), and reduces float32 gradients.
    Spread experts are gathered only among the GPUs that share them; tokens go to them in bfloat16, and come back. Once
    a step, an all-reduce between replicas moves its share twice. A step of Adafactor gathers all weights and gradients
    in float32, one parameter at a time.

    Args:
        weights: On the GPUs that share a copy.
        replicas: Copies.
        micro_batches: Of a step on one GPU.
        tokens: Tokens of a micro-batch.
        recompute: Whether activations are recomputed, and with them what goes to experts.
    """
    spread = weights.experts if weights.expert_ranks > 1 else 0
    frozen = weights.all - weights.trained
    dense = weights.all - spread
    again = 0 if weights.kept else dense - weights.root
    owners = weights.shard // weights.expert_ranks
    gathered = _ring(weights.shard) * (2 * dense + 2 * again + 4 * (dense - frozen))
    gathered += _ring(owners) * 8 * spread / weights.expert_ranks
    ways = 6 if recompute else 4
    exchanged = _ring(weights.expert_ranks) * 2 * ways * tokens * weights.routed
    update = _ring(weights.shard) * 8 * weights.trained if weights.adafactor else 0.0
    between = 2 * _ring(replicas) * 4 * weights.trained / weights.shard
    return Sent(micro_batches * gathered + update, micro_batches * exchanged, between)


def _ring(gpus: int) -> float:
    return (gpus - 1) / gpus
