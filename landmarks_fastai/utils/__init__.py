"""General helpers: files, images, CSV, downloads, progress, interrupts, text of messages."""
