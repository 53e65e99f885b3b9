"""Data sets: loading, label checks, corrections and splits."""
