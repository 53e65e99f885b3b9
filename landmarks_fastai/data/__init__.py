"""Data sets: reading them, checking their labels, correcting and splitting them."""
