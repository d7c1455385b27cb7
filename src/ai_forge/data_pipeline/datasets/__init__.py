"""Datasets as files: formats, Parquet, views, the quality report."""
