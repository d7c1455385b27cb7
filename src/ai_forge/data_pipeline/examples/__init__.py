"""Blocks to RAFT examples: the split, question families and their wording, checks and scores of each example."""
