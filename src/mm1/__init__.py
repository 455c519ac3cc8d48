"""MM1 (arXiv 2403.09611) as software: build, ablate, train, evaluate and use multimodal language models.

After `import mm1` the Auto classes of `transformers` know MM1's models:

    import mm1
    from transformers import AutoModelForImageTextToText, AutoProcessor
    model = AutoModelForImageTextToText.from_pretrained("runs/demo/model")
    processor = AutoProcessor.from_pretrained("runs/demo/model")
"""

from mm1.moved import keep_old_names
from mm1.registration import register_with_transformers
from mm1.version import __version__

register_with_transformers()
keep_old_names()

__all__ = ["__version__"]
