"""MM1 (arXiv 2403.09611) as software: build, ablate, train, evaluate and use multimodal language models."""

__version__ = "0.1.0"
