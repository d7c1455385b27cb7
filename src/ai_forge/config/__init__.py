"""Settings: frozen models with their defaults, and the loader that lays file, environment and flags over them."""

from ai_forge.config.data import MinerSettings, SplitSettings, SynthesisSettings, ValidatorSettings
from ai_forge.config.guardian import GuardianSettings
from ai_forge.config.loader import (
    Layer,
    LoadedSettings,
    environment_layer,
    file_layer,
    flatten,
    known_keys,
    load_recipes,
    load_settings,
    recipe_layer,
)
from ai_forge.config.service import ServiceSettings
from ai_forge.config.settings import ConductorSettings, ExportSettings, JudgeSettings, RuntimeSettings, Settings
from ai_forge.config.training import ALL_LINEAR_MODULES, ATTENTION_MODULES, FineTuneConfig

__all__ = [
    "ALL_LINEAR_MODULES",
    "ATTENTION_MODULES",
    "ConductorSettings",
    "ExportSettings",
    "FineTuneConfig",
    "GuardianSettings",
    "JudgeSettings",
    "Layer",
    "LoadedSettings",
    "MinerSettings",
    "RuntimeSettings",
    "ServiceSettings",
    "Settings",
    "SplitSettings",
    "SynthesisSettings",
    "ValidatorSettings",
    "environment_layer",
    "file_layer",
    "flatten",
    "known_keys",
    "load_recipes",
    "load_settings",
    "recipe_layer",
]
