"""The recipe: one YAML file that describes a run completely, checked key by key.

    recipe = load_recipe("demo", ["train.steps=100"])      # a packaged recipe by name
    recipe = load_recipe("my/recipe.yaml")                 # or a file

A recipe file may extend another one (`base: demo`) and override its keys. Numbers from the paper name their section.
"""

from mm1.recipe.encoder import (
    EncoderDataRecipe,
    EncoderEvaluateRecipe,
    EncoderModelRecipe,
    EncoderRecipe,
    ObjectiveRecipe,
    ProbeRecipe,
    TextTowerRecipe,
    ZeroShotRecipe,
)
from mm1.recipe.load import check_recipe, load_recipe, packaged_recipes, parse_setting
from mm1.recipe.lora import LoraRecipe
from mm1.recipe.packaged import Shelf, merge
from mm1.recipe.schema import (
    BuildRecipe,
    ConnectorRecipe,
    DataRecipe,
    DuringRecipe,
    EvaluateRecipe,
    Fit,
    KindRecipe,
    LanguageModelRecipe,
    ModelRecipe,
    Overview,
    Recipe,
    ResolutionRecipe,
    RunRecipe,
    SourceRecipe,
    TokenizerRecipe,
    TrainRecipe,
    VisionRecipe,
)
from mm1.recipe.section import Section
from mm1.recipe.vit_sizes import VIT_SIZES

__all__ = [
    "VIT_SIZES",
    "BuildRecipe",
    "ConnectorRecipe",
    "DataRecipe",
    "DuringRecipe",
    "EncoderDataRecipe",
    "EncoderEvaluateRecipe",
    "EncoderModelRecipe",
    "EncoderRecipe",
    "EvaluateRecipe",
    "Fit",
    "KindRecipe",
    "LanguageModelRecipe",
    "LoraRecipe",
    "ModelRecipe",
    "ObjectiveRecipe",
    "Overview",
    "ProbeRecipe",
    "Recipe",
    "ResolutionRecipe",
    "RunRecipe",
    "Section",
    "Shelf",
    "SourceRecipe",
    "TextTowerRecipe",
    "TokenizerRecipe",
    "TrainRecipe",
    "VisionRecipe",
    "ZeroShotRecipe",
    "check_recipe",
    "load_recipe",
    "merge",
    "packaged_recipes",
    "parse_setting",
]
