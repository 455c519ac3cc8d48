"""The library's tests of tensor and expert parallelism and of FSDP, on CPU processes (gloo)."""

from __future__ import annotations

import tempfile
import unittest
from typing import Any, ClassVar
from unittest import mock

import torch
from torchao.quantization import Float8WeightOnlyConfig
from transformers import TorchAoConfig, set_seed
from transformers.distributed import DistributedConfig

from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model
from mm1.model.sparse import EXPERTS_EP_PLAN
from tests.peers.library import common
from tests.peers.ranks import experts_on_two_axes, open_to_all_models, run_distributed
from tests.peers.variants import VARIANTS, Tester

TensorTests: Any = common("test_tensor_parallel_mixin").TensorParallelTesterMixin
ExpertTests: Any = common("test_expert_parallel_mixin").ExpertParallelTesterMixin
FSDPTests: Any = common("test_fsdp_mixin").FSDPTesterMixin
open_to_all_models()


class _Variant:
    all_model_classes = (MM1Model, MM1ForConditionalGeneration)
    changes: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self._tester = Tester(self, **self.changes)

    @property
    def model_tester(self) -> Tester:
        return self._tester


class _TensorParallelTests(_Variant, TensorTests):
    def test_tp_generation_quantized(self) -> None:
        """Quantized in parts, a model is as near to the whole one in float32 as quantized at once.

        In place of the library's test. That compares the words which random weights write: one tie nearer than the
        rounding of eight bits, and all that follow are others.
        """
        set_seed(42)
        with tempfile.TemporaryDirectory() as folder:
            MM1ForConditionalGeneration(self.model_tester.get_config()).save_pretrained(folder)
            run_distributed(world_size=2)(quantized_in_parts)(folder)


def quantized_in_parts(rank: int, folder: str) -> None:
    settings = {"quantization_config": TorchAoConfig(Float8WeightOnlyConfig())}
    parts = {"distributed_config": DistributedConfig(tp_size=2)}
    load = MM1ForConditionalGeneration.from_pretrained
    exact, at_once, in_parts = (load(folder, **s).eval() for s in ({}, settings, settings | parts))
    ids = torch.randint(23, 99, (4, 32), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted, first, second = (model(input_ids=ids).logits for model in (exact, at_once, in_parts))
        written = in_parts.generate(ids, max_new_tokens=8, min_new_tokens=8, do_sample=False)
    error, error_in_parts = ((found - wanted).abs().mean() for found in (first, second))
    assert 0 < error < 0.05 * wanted.std()
    assert 0 < error_in_parts < 1.2 * error, f"{error_in_parts} in parts, {error} at once"
    assert written.shape == (4, 40)


class DenseTensorParallelTest(_TensorParallelTests, unittest.TestCase):
    pass


class SparseTensorParallelTest(ExpertTests, _TensorParallelTests, unittest.TestCase):
    changes: ClassVar[dict[str, Any]] = VARIANTS["Sparse"]

    def _has_ep_plan(self) -> bool:
        """The mixin looks for the plan in `text_config`; the experts are MM1's, and so is their plan."""
        return bool(MM1Model(self.model_tester.get_config()).ep_plan)


class FSDPTest(_Variant, FSDPTests, unittest.TestCase):
    def _get_tiny_config(self) -> tuple[type, dict[str, Any]]:
        """The mixin widens a flat configuration; ours is two, and tiny as it is."""
        config = self.model_tester.get_config()
        return type(config), config.to_dict() | {"vocab_size": self.model_tester.vocab_size}


class SparseFSDPTest(FSDPTest):
    # The router's losses hang on how rows lie in batches, and the tests compare one batch with its parts.
    changes: ClassVar[dict[str, Any]] = VARIANTS["Sparse"] | {"moe_balance_loss": 0.0, "moe_z_loss": 0.0}

    def setUp(self) -> None:
        super().setUp()
        # The mixin looks for the plan in the configuration; the model has it.
        patch = mock.patch.object(MM1Config, "base_model_ep_plan", EXPERTS_EP_PLAN)
        patch.start()
        self.addCleanup(patch.stop)

    def test_fsdp2_expert_parallel_2d_vs_ddp(self) -> None:
        """Half of the library's test is over text alone; here all of it is."""
        self._run_fsdp2_distributed_test("fsdp2_expert_parallel_2d_vs_ddp", experts_on_two_axes, world_size=4)
