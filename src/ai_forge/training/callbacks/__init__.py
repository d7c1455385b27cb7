"""Listeners of a training's events: they get typed events, never the loop."""

from ai_forge.training.callbacks.divergence import DivergenceGuard
from ai_forge.training.callbacks.early_stopping import EarlyStopping
from ai_forge.training.callbacks.loss_plotter import LossPlotter, draw_loss_curve
from ai_forge.training.callbacks.memory_monitor import MemoryMonitor
from ai_forge.training.callbacks.metrics_logger import MetricsLogger

__all__ = ["DivergenceGuard", "EarlyStopping", "LossPlotter", "MemoryMonitor", "MetricsLogger", "draw_loss_curve"]
