"""Models for others: a run is pushed with a card that says what it is, and pulled whole.

run --facts--> base models, corpora, plan, scores --card--> README.md -+
model's folder --contents--> weights, settings, processor ------------+--private--> a folder, or the Hub
"""
