"""What the one loop minimises: objectives, made of functions of per-token log-probabilities."""

from ai_forge.training.losses.distillation_loss import DistillationObjective, distillation_loss
from ai_forge.training.losses.dpo_loss import PreferenceObjective, TokenizedPair, with_reference
from ai_forge.training.losses.objective import Objective, SupervisedObjective, as_objective
from ai_forge.training.losses.raft_loss import token_weights, weighted_loss
from ai_forge.training.losses.sft import sft_loss

__all__ = [
    "DistillationObjective",
    "Objective",
    "PreferenceObjective",
    "SupervisedObjective",
    "TokenizedPair",
    "as_objective",
    "distillation_loss",
    "sft_loss",
    "token_weights",
    "weighted_loss",
    "with_reference",
]
