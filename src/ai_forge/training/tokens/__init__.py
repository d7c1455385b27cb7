"""Examples to token ids and packed batches."""
