"""One module a command: what happens between a question on the command line and the files that answer it."""
