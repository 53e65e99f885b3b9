"""What each command does, without printing: one module per command, and the modules that they share."""
