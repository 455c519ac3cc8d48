"""Few-shot scoring with pictures in the shots: tasks as data, one generator, metrics with intervals."""
