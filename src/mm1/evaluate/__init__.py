"""Few-shot scoring with pictures in the shots: tasks as YAML files, one generator, metrics with intervals."""
