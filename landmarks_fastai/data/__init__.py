"""Every source of labelled faces becomes the same table."""
