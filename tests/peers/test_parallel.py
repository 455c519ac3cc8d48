"""The library's tests of tensor and expert parallelism and of FSDP, on CPU processes (gloo)."""

from __future__ import annotations

import unittest
from typing import Any, ClassVar

from mm1.model import MM1ForConditionalGeneration, MM1Model
from tests.peers.library import common
from tests.peers.ranks import open_to_all_models
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


class DenseTensorParallelTest(_Variant, TensorTests, unittest.TestCase):
    pass


class SparseTensorParallelTest(_Variant, ExpertTests, TensorTests, unittest.TestCase):
    changes: ClassVar[dict[str, Any]] = VARIANTS["Sparse"]

    def _has_ep_plan(self) -> bool:
        """The mixin looks for the plan in `text_config`; the experts are MM1's, and so is their plan."""
        return bool(MM1Model(self.model_tester.get_config()).ep_plan)


class FSDPTest(_Variant, FSDPTests, unittest.TestCase):
    def _get_tiny_config(self) -> tuple[type, dict[str, Any]]:
        """The mixin widens a flat configuration; ours is two, and tiny as it is."""
        config = self.model_tester.get_config()
        return type(config), config.to_dict() | {"vocab_size": self.model_tester.vocab_size}
