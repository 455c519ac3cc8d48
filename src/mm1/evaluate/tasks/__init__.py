"""The packaged tasks, one YAML file each."""
