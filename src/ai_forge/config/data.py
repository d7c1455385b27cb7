"""Settings of the data pipeline (moved here once the pipeline lands)."""

from ai_forge.data_pipeline.settings import MinerSettings, SplitSettings, SynthesisSettings, ValidatorSettings

__all__ = ["MinerSettings", "SplitSettings", "SynthesisSettings", "ValidatorSettings"]
