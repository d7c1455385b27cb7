"""What a guardian sees: what changed since the last training, and how well the deployed model still fits."""
