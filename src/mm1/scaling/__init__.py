"""Scaling: the learning-rate law, and what a training run takes. `mm1.train` may import it, never the reverse."""
