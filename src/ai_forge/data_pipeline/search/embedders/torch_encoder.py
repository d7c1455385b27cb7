"""Transformer encoders as embedders, through transformers: CodeBERT, UniXcoder, MiniLM, BGE, …

A folder or a Hugging Face name; a name is read from the local cache, and downloaded where that is allowed. Token vectors
are averaged over the text; a folder in the sentence-transformers layout that says `pooling_mode_cls_token` has its first
token's vector instead. Texts longer than the model reads (at most 512 tokens here) are cut. Batches hold texts of similar
length. Prompts that some models want before a query ("query: ") are not written.
"""

import json
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from ai_forge.data_pipeline.search.embedders.embedding import Matrix, Texts, unit_rows
from ai_forge.errors import PrerequisiteError

__all__ = ["EncoderEmbedder"]

_BATCH = 32
_MAX_TOKENS = 512


class EncoderEmbedder:
    """One encoder, loaded when it is first asked, on CUDA where there is one, else on the CPU in float32."""

    weight = 1.0

    def __init__(self, name: str) -> None:
        self.name = name
        self._loaded: tuple[Any, Any, str, bool] | None = None

    def embed(self, texts: Texts) -> Matrix:
        """Unit vectors [text, dimension]. Raises PrerequisiteError where the model or torch is not here."""
        import torch

        tokenizer, model, device, takes_first = self._model()
        order = sorted(range(len(texts.written)), key=lambda i: len(texts.written[i]))
        vectors: Matrix = np.zeros((len(order), model.config.hidden_size), dtype=np.float32)
        longest = min(_MAX_TOKENS, getattr(model.config, "max_position_embeddings", _MAX_TOKENS) - _offset(model))
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            read = tokenizer(
                [texts.written[i] for i in batch],
                padding=True,
                truncation=True,
                max_length=longest,
                return_tensors="pt",
            ).to(device)
            with torch.inference_mode():
                states = model(**read).last_hidden_state.float()
            mask = read["attention_mask"].unsqueeze(-1).float()
            pooled = states[:, 0] if takes_first else (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)
            vectors[batch] = pooled.cpu().numpy()
        return unit_rows(vectors)

    def _model(self) -> tuple[Any, Any, str, bool]:
        if self._loaded is None:
            try:
                import torch
                from transformers import AutoModel, AutoTokenizer
            except ImportError as error:
                raise PrerequisiteError(
                    f"The embedder {self.name!r} needs PyTorch and transformers ({error}).",
                    "Run `pip install 'ai-forge[torch]'`, or use the embedder none.",
                ) from error
            device = "cuda" if torch.cuda.is_available() else "cpu"
            try:
                tokenizer = AutoTokenizer.from_pretrained(self.name, trust_remote_code=False)
                model = AutoModel.from_pretrained(self.name, dtype=torch.float32, trust_remote_code=False)
                model = model.eval().to(device)
            except (OSError, ValueError, UnpicklingError) as error:  # the last: weights that are more than tensors
                reason = str(error).strip().splitlines()[0]
                raise PrerequisiteError(
                    f"The embedder {self.name!r} cannot be loaded: {reason}",
                    "Give a folder with the model, download it once with `hf download NAME`, or use the embedder none.",
                ) from error
            self._loaded = (tokenizer, model, device, _takes_first_token(Path(self.name)))
        return self._loaded


def _offset(model: Any) -> int:
    """RoBERTa's positions start after its padding id: two fewer tokens fit than `max_position_embeddings` says."""
    is_roberta = getattr(model.config, "model_type", "") in ("roberta", "xlm-roberta", "camembert")
    return int(model.config.pad_token_id or 0) + 1 if is_roberta else 0


def _takes_first_token(folder: Path) -> bool:
    try:
        pooling = json.loads((folder / "1_Pooling" / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return bool(pooling.get("pooling_mode_cls_token"))
