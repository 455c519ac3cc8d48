"""One training step by the real code on tensors without contents: what a run takes on GPUs that are not at hand."""
