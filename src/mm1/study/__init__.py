"""Studies: a question put to training runs that differ in one thing, and answered with its uncertainty."""
