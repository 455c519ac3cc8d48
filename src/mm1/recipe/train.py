"""The section `train`: optimisation, precision, ranks, checkpoints and the log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from mm1.recipe.lora import LoraRecipe
from mm1.recipe.section import Section

Beta = Annotated[float, Field(ge=0, lt=1)]


class TrainRecipe(Section):
    """Optimisation. Defaults are the paper's unless another source is given."""

    steps: int = Field(200_000, gt=0, description="Optimizer steps (paper sec. 3).")
    batch_size: int = Field(512, gt=0, description="Sequences per optimizer step, over all ranks (paper sec. 3).")
    micro_batch_size: int | None = Field(None, gt=0, description="Sequences per forward pass; default: batch_size.")
    learning_rate: float | None = Field(
        None,
        gt=0,
        description="Peak; default exp(-0.4214 ln N - 0.5535), N = decoder parameters without embeddings (sec. 3.4).",
    )
    connector_learning_rate: float | None = Field(
        8e-5,
        gt=0,
        description="Peak for the connector (recalled from the paper's appendix); null: as for the rest.",
    )
    vision_learning_rate: float | None = Field(
        None, gt=0, description="Peak for the vision tower; null: as for the rest."
    )
    weight_decay: float = Field(
        0.1, ge=0, description="Multiple of the learning rate (paper sec. 3.4: lambda = 0.1 eta)."
    )
    betas: tuple[Beta, Beta] = Field((0.9, 0.95), description="AdamW (AXLearn's GPT default).")
    epsilon: float = Field(1e-8, gt=0, description="Added to AdamW's denominator (torch's default).")
    warmup_steps: int = Field(2000, ge=0, description="Steps of linear warm-up (paper appendix).")
    final_learning_rate: float = Field(
        0.1, ge=0, le=1, description="Share of the peak at which the cosine ends (paper appendix)."
    )
    optimizer: Literal["adamw", "adafactor"] = Field("adamw", description="The paper fine-tunes with Adafactor.")
    decay_everything: bool = Field(True, description="false: no weight decay on norms, biases and embeddings.")
    freeze: list[Literal["vision", "connector", "language_model"]] = Field(
        [], description="Parts that are not trained (paper: none, neither in pre-training nor in fine-tuning)."
    )
    lora: LoraRecipe | None = Field(None, description="Train adapters; null: the parts' own weights are trained.")
    clip_norm: float | None = Field(1.0, gt=0, description="Limit that the global gradient norm is clipped to.")
    z_loss: float = Field(0.0, ge=0, description="Weight of mean(logsumexp(logits)^2) (1e-4 recalled for MM1-30B).")
    device: str = Field("auto", description="`auto`: a GPU if there is one, else the CPU; or a torch device.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Precision of matrix products. `auto`: bfloat16 on GPUs and on CPUs that have it "
        "(AVX512-BF16, AMX), else float32. Weights and optimizer are always float32.",
    )
    compile: bool | Literal["auto"] = Field(
        False, description="Compile each block of towers and decoder (torch.compile). `auto`: if a compiler exists."
    )
    activation_checkpointing: bool = Field(False, description="Recompute activations in the backward pass.")
    replicas: int = Field(1, gt=0, description="Copies of the sharded model over the ranks (hybrid sharding).")
    expert_parallel: int | None = Field(
        None, gt=0, description="Ranks over which a layer's experts are spread. Default: as many as divide both."
    )
    reshard_after_forward: bool = Field(
        True, description="Free gathered weights until the backward pass: less memory, more to send (FSDP)."
    )
    checkpoint_every: int = Field(1000, gt=0, description="Steps between two checkpoints; the last step has one.")
    keep_checkpoints: int = Field(2, gt=0, description="Number of latest checkpoints to keep.")
    keep_every: int | None = Field(None, gt=0, description="Also keep checkpoints at multiples of this many steps.")
    log_every: int = Field(10, gt=0, description="Steps between two lines of the log; the last step has one.")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        [],
        description="Trackers that get the log besides metrics.jsonl (pip install 'mm1[track]'; pip install trackio).",
    )
    max_bad_steps: int = Field(
        10, gt=0, description="Training stops after this many steps in a row with infinite or undefined gradients."
    )
    profile: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = Field(
        None, description="`[step, steps]`: profile so many steps from this one on; traces go to the run's profile/."
    )

    @model_validator(mode="after")
    def _consistent(self) -> TrainRecipe:
        micro = self.micro_batch_size or self.batch_size
        if self.batch_size % micro:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {micro}: change one of them"
            )
        if set(self.freeze) == {"vision", "connector", "language_model"}:
            raise ValueError("freeze names all three parts, so nothing is trained: leave one out")
        if self.lora is not None:
            self.lora.check_beside(self.freeze)
        if self.profile is not None and sum(self.profile) > self.steps + 1:
            raise ValueError(
                f"profile {list(self.profile)} ends at step {sum(self.profile) - 1} of {self.steps}: begin earlier or "
                "profile fewer steps"
            )
        if self.warmup_steps >= self.steps:
            raise ValueError(f"warmup_steps {self.warmup_steps} must be fewer than steps {self.steps}")
        return self

    @property
    def unchanged(self) -> list[str]:
        """Parts whose own weights don't learn: frozen, or with adapters."""
        return [*self.freeze, *(self.lora.parts if self.lora is not None else [])]
