"""Models that can be scored: ours, and those of `transformers`; and an adapter with which lmms-eval scores them."""
