"""`mm1 serve`: the library's server (`transformers serve`) with one model, our limits and our batches."""
