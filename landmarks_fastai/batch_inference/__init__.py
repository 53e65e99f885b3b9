"""Prediction of millions of images: sources are divided into shards, and each becomes a Parquet file."""
