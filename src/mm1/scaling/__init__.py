"""Scaling: the learning-rate law, and the memory, time and cost of a training run.

`mm1.train` may import this package, but not the reverse.
"""
