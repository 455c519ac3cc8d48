"""MM1 (arXiv 2403.09611) as software: build, ablate, train, evaluate and use multimodal language models.

After `import mm1` the Auto classes of `transformers` know MM1's models:

    import mm1
    model = AutoModelForImageTextToText.from_pretrained("runs/demo/model")
    processor = AutoProcessor.from_pretrained("runs/demo/model")
"""

__version__ = "0.1.0"

import mm1.model  # noqa: F401  (registers MM1 with the Auto classes)
