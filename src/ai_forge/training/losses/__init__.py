"""What the one loop minimises: functions of per-token log-probabilities, handed to the loop."""

from ai_forge.training.losses.sft import sft_loss

__all__ = ["sft_loss"]
