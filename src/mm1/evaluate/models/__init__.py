"""Models that can be scored: ours and those of `transformers`; and an adapter for lmms-eval."""
