"""Helpers without knowledge of landmarks: files, images, CSV, downloads, interrupts, messages."""
