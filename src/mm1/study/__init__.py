"""Studies: compare training runs that differ in one thing, and answer a question with its uncertainty."""
