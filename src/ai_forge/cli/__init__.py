"""`ai-forge`: words to calls, values to text. Nothing else."""
