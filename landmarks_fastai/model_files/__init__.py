"""Model files: header, loading, saving, and where trained and released models are found."""
