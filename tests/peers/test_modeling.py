"""The library's common tests of models, configurations and training, one class of each a variant."""

from __future__ import annotations

import copy
import unittest
from typing import Any, ClassVar
from unittest import mock

import pytest

from mm1.model import MM1Config, MM1ForConditionalGeneration, MM1Model
from mm1.model.base import MM1PreTrainedModel
from tests.peers.library import common
from tests.peers.variants import VARIANTS, Tester

modeling = common("test_modeling_common")
configuration = common("test_configuration_common")
ModelTests: Any = modeling.ModelTesterMixin
GenerationTests: Any = modeling.GenerationTesterMixin
TrainingTests: Any = common("test_training_mixin").TrainingTesterMixin


class _ModelTests(ModelTests, GenerationTests):
    all_model_classes = (MM1Model, MM1ForConditionalGeneration)
    _is_composite = True
    test_can_init_all_missing_weights_before_2023 = True  # it goes by a copyright line
    changes: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self.model_tester = Tester(self, **self.changes)
        self.config_tester = configuration.ConfigTester(
            self,
            config_class=MM1Config,
            has_text_modality=False,
            common_properties=["image_token_id", "image_token_index", "vision_feature_layer", "image_seq_length"],
        )

    def test_config(self) -> None:
        self.config_tester.run_common_tests()

    def test_can_init_all_missing_weights(self) -> None:
        """Run as for the library's own models: of others it passes over modules without weights of their own.

        The initialisation of CLIP's attention and MLP then goes missing, whoever builds on CLIP.
        """
        with mock.patch.object(MM1PreTrainedModel, "is_custom_code", classmethod(lambda cls: False)):
            super().test_can_init_all_missing_weights()

    def test_mismatching_images(self) -> None:
        """The library's LLaVA tests have it: a wrong number of pictures is a ValueError."""
        config, inputs = self.model_tester.prepare_config_and_inputs_for_common()
        for model_class in self.all_model_classes:
            model = model_class(copy.deepcopy(config)).eval()
            model(**inputs)
            with pytest.raises(ValueError, match="image tokens"):
                model(**(inputs | {"pixel_values": inputs["pixel_values"][:1]}))


class _FlatTester(Tester):
    """Its configuration has the vocabulary's size where a language model's has it, which the mixin reads."""

    causal_lm_class = MM1ForConditionalGeneration

    def get_config(self) -> MM1Config:
        config = super().get_config()
        config.vocab_size = self.vocab_size
        return config


class _TrainingTests(TrainingTests):
    """Trains, and writes the learned text again."""

    all_model_classes = (MM1Model, MM1ForConditionalGeneration)
    changes: ClassVar[dict[str, Any]] = {}

    def setUp(self) -> None:
        self._tester = _FlatTester(self, **self.changes)

    @property
    def model_tester(self) -> Tester:
        return self._tester


class _SparseModelTests(_ModelTests):
    """The library asks a model's source code whether there are experts; here the configuration says so."""

    def setUp(self) -> None:
        super().setUp()
        patch = mock.patch.object(MM1Model, "_can_set_experts_implementation", classmethod(lambda cls: True))
        patch.start()
        self.addCleanup(patch.stop)

    def test_moe_models_record_router_logits(self) -> None:
        with mock.patch.object(modeling.inspect, "getsource", return_value="@use_experts_implementation"):
            super().test_moe_models_record_router_logits()


for name, changes in VARIANTS.items():
    models = _SparseModelTests if "moe_num_experts" in changes else _ModelTests
    for base, title in ((models, "ModelTest"), (_TrainingTests, "TrainingTest")):
        globals()[f"{name}{title}"] = type(f"{name}{title}", (base, unittest.TestCase), {"changes": changes})
del name, changes, models, base, title
