"""The model family: vision towers, connectors and decoders as one `transformers` model.

Importing this package makes `AutoConfig`, `AutoModel`, `AutoModelForImageTextToText` and `AutoProcessor` know MM1,
and the attention implementation `varlen`.
"""

from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM, AutoProcessor

import mm1.model.attention  # noqa: F401  (registers varlen)
from mm1.model.configuration import MM1Config
from mm1.model.factory import build_model
from mm1.model.modeling import MM1ForConditionalGeneration, MM1Model
from mm1.model.resolve import resolve_model
from mm1.model.sizes import non_embedding_parameters, parameters_by_part
from mm1.processing.processor import MM1Processor

AutoConfig.register("mm1", MM1Config)
AutoModel.register(MM1Config, MM1Model)
for _auto in (AutoModelForImageTextToText, AutoModelForMultimodalLM):
    _auto.register(MM1Config, MM1ForConditionalGeneration)
AutoProcessor.register(MM1Config, MM1Processor)

__all__ = [
    "MM1Config",
    "MM1ForConditionalGeneration",
    "MM1Model",
    "MM1Processor",
    "build_model",
    "non_embedding_parameters",
    "parameters_by_part",
    "resolve_model",
]
