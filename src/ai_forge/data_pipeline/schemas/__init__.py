"""The values that travel through the data pipeline: frozen, content-addressed, with their provenance."""

from ai_forge.data_pipeline.schemas.code_blocks import BlockMetadata, CodeBlock, Guard, Import, content_id
from ai_forge.data_pipeline.schemas.metrics import DataQualityMetrics
from ai_forge.data_pipeline.schemas.raft_examples import Document, Fact, RAFTExample

__all__ = [
    "BlockMetadata",
    "CodeBlock",
    "DataQualityMetrics",
    "Document",
    "Fact",
    "Guard",
    "Import",
    "RAFTExample",
    "content_id",
]
