"""AI Forge: fine-tune a local language model on a team's own repository, prove what it gained, and serve it.

The parts, in the order a datum travels: `config` (settings), `data_pipeline` (files to examples), `training`
(examples to an adapter), `judge` (adapter to a verdict and a GGUF), `serving` (GGUF to a deployed model), with
`pipeline` calling them one after the other and `cli` in front.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
