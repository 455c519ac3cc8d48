"""Plans as they have been since rule 2: whatever makes them, they stay so."""
