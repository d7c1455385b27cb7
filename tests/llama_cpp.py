"""llama.cpp itself, in this process, as the oracle for token ids and probabilities."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import xllamacpp


class LlamaCpp:
    """A server on a GGUF file; it ends with the object."""

    def __init__(self, path: Path, n_ctx: int = 1024) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.n_ctx = n_ctx
        params.n_parallel = 1
        params.warmup = False
        params.cpuparams.n_threads = 2
        params.verbosity = -1
        params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(params)
        # One that is destroyed before its loop has begun waits for that loop for ever: a completion goes through it.
        self._post("/completion", {"prompt": "a", "n_predict": 0})

    def _post(self, route: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        body = {"content": text, "parse_special": True, "add_special": special}
        return list(self._post("/tokenize", body)["tokens"])

    def next_token(self, ids: list[int], n: int) -> dict[int, float]:
        """Log-probabilities of the `n` likeliest next tokens.

        The server reports none for a token that is half a character, so a letter is forced; the probabilities are
        taken before that.
        """
        letter = self.tokenize("a")[0]
        body = {"prompt": ids, "n_predict": 1, "n_probs": n, "cache_prompt": False, "logit_bias": [[letter, 1000.0]]}
        answer = self._post("/completion", body)
        return {row["id"]: row["logprob"] for row in answer["completion_probabilities"][0]["top_logprobs"]}

    def greedy(self, ids: list[int], n: int) -> list[int]:
        body = {"prompt": ids, "n_predict": n, "temperature": 0.0, "cache_prompt": False, "return_tokens": True}
        return list(self._post("/completion", body | {"ignore_eos": True})["tokens"])
