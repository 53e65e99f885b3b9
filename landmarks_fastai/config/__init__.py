"""The training config: its options, and reading it from YAML and the command line."""
