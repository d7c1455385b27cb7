"""Will llama.cpp cut text into the trainer's ids, and make the trainer's prompts? Found out before anything is trained.

Method: the tokenizer and the chat template that the export will write stand in a GGUF of one tiny layer of zeros (a hole in
the disk), which llama.cpp loads; a probe text made from the tokenizer itself and a few chats go through both. Rules about
single settings would miss the next one. llama.cpp runs in a process of its own, because it aborts on some tokenizers.
Measured: 1.2 s for SmolLM2's vocabulary of 49k.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gguf import GGMLQuantizationType as Type
from pydantic import BaseModel

from ai_forge.errors import InputError
from ai_forge.model_files.gguf.kquants import quantized_bytes
from ai_forge.model_files.gguf.metadata import encode_header, float32, padded, string, uint32
from ai_forge.model_files.gguf.reader import GGUFTensor
from ai_forge.model_files.tokenizers.probe import probe_texts, what_is_unusual
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message

WIDTH = 32  # of the model that carries the tokenizer; a block of llama.cpp's smallest kind
TIMEOUT_S = 120.0
TEXTS_AT_ONCE = 100  # in one request: one for each would be thousands
ANOTHER_BASE = "choose another base: ai-forge models."
_CONTENTS = {"system": "Answer briefly.", "user": "a\n\nb  c", "assistant": "two {{ x }}"}
_ROLES = (("user",), ("system", "user"), ("user", "assistant", "user"), ("system", "user", "assistant", "user"))
CHATS: list[list[Message]] = [[{"role": role, "content": _CONTENTS[role]} for role in roles] for roles in _ROLES]


class _Answers(BaseModel):
    """What the process with llama.cpp answers. A prompt that its template engine refuses is None."""

    texts: list[list[int]]
    prompts: list[list[int] | None]


def require_same_tokens(
    tokenizer_json: Mapping[str, Any],
    values: Mapping[str, bytes],
    n_tokens: int,
    tokenizer: ChatTokenizer,
    *,
    before: str = "",
) -> None:
    """Compare `tokenizer`, the trainer's, with llama.cpp on the tokenizer metadata `values` (and `general.name`).

    `before` is put before each text: the token that begins every prompt, where the tokenizer treats the start of a text
    in another way than what follows.

    Raises:
        InputError: ids or prompts differ (the message shows where), or llama.cpp does not load the tokenizer.
    """
    texts = [before + text for text in probe_texts(tokenizer_json)]
    chats = [chat for chat in CHATS if _is_rendered(chat, tokenizer)]
    with tempfile.TemporaryDirectory(prefix="ai-forge-tokens-") as folder:
        path = Path(folder) / "tokens.gguf"
        _write_carrier(path, values, n_tokens)
        # a chunk that is cut alike needs no look at its texts one by one
        chunks = [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]
        together = ["\n".join(chunk) for chunk in chunks]
        answers = _llama_cpps(path, together, chats)
        for chunk, text, theirs in zip(chunks, together, answers.texts, strict=True):
            if tokenizer.encode(text) != theirs:
                closer = [*chunk, text]  # one alone is easier to read, but the difference may lie between two
                _raise_first_difference(tokenizer_json, tokenizer, closer, _llama_cpps(path, closer, []).texts)
    for chat, prompt in zip(chats, answers.prompts, strict=True):
        if prompt != tokenizer.encode_prompt(chat):
            roles = ", ".join(message["role"] for message in chat)
            raise InputError(
                f"llama.cpp makes another prompt than the trainer of a chat with the roles {roles}: its template engine "
                "follows the base's chat template otherwise.",
                "choose another base, or write its chat template more plainly.",
            )


def _is_rendered(chat: Sequence[Message], tokenizer: ChatTokenizer) -> bool:
    try:
        tokenizer.render(chat)
    except InputError:  # a template may refuse a chat; llama.cpp is not asked for what is never trained on
        return False
    return True


def _raise_first_difference(
    tokenizer_json: Mapping[str, Any], tokenizer: ChatTokenizer, texts: list[str], answers: list[list[int]]
) -> None:
    for text, theirs in zip(texts, answers, strict=True):
        ours = tokenizer.encode(text)
        if ours != theirs:
            unusual = what_is_unusual(tokenizer_json)
            reason = unusual and f" The tokenizer has {unusual}."
            raise InputError(
                f"llama.cpp cuts {text[:60]!r} into the tokens {theirs[:12]}, the base's tokenizer into {ours[:12]}: the "
                f"deployed model would read another text than the trained one.{reason}",
                ANOTHER_BASE,
            )


def _llama_cpps(path: Path, texts: list[str], chats: list[list[Message]]) -> _Answers:
    command = [sys.executable, "-c", _SERVE, str(path)]
    asked = json.dumps({"texts": texts, "chats": chats})
    done = subprocess.run(command, input=asked, capture_output=True, text=True, timeout=TIMEOUT_S)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise InputError(
            f"llama.cpp does not load the base's tokenizer and chat template (exit {done.returncode}: {last[:200]}).",
            ANOTHER_BASE,
        )
    return _Answers.model_validate_json(done.stdout.splitlines()[-1])


_SERVE = """
import json, os, sys, urllib.error, urllib.request
import xllamacpp
params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.verbosity = -1
params.n_ctx = 64
params.n_parallel = 1
params.ui = params.warmup = False
params.cache_ram_mib = 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
server = xllamacpp.Server(params)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
def post(route, **body):
    data, kind = json.dumps(body).encode(), {"Content-Type": "application/json"}
    return json.load(opener.open(urllib.request.Request(server.listening_address + route, data, kind)))
def ids(text, **options):
    return post("/tokenize", content=text, parse_special=True, **options)["tokens"]
def prompt_ids(chat):
    try:
        return ids(post("/apply-template", messages=chat)["prompt"], add_special=True)
    except urllib.error.HTTPError:
        return None
asked = json.load(sys.stdin)
texts, prompts = [ids(text) for text in asked["texts"]], [prompt_ids(chat) for chat in asked["chats"]]
print(json.dumps({"texts": texts, "prompts": prompts}), flush=True)
os._exit(0)  # the server would wait for its loop, which may not even have begun
"""


def _write_carrier(path: Path, values: Mapping[str, bytes], n_tokens: int) -> None:
    matrices = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    shapes: dict[str, tuple[int, ...]] = {"token_embd.weight": (n_tokens, WIDTH), "output_norm.weight": (WIDTH,)}
    shapes |= {f"blk.0.{name}.weight": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
    shapes |= {f"blk.0.{name}.weight": (WIDTH, WIDTH) for name in matrices}
    table = []
    for name, shape in shapes.items():
        kind = Type.F32 if len(shape) == 1 else Type.F16
        table.append(GGUFTensor(name, shape, kind, 0, quantized_bytes(shape, kind)))
    settings = {
        "general.architecture": string("llama"),
        "llama.block_count": uint32(1),
        "llama.context_length": uint32(512),
        "llama.embedding_length": uint32(WIDTH),
        "llama.feed_forward_length": uint32(WIDTH),
        "llama.attention.head_count": uint32(1),
        "llama.rope.dimension_count": uint32(WIDTH),
        "llama.attention.layer_norm_rms_epsilon": float32(1e-5),
    }
    header = encode_header(settings | dict(values), table)
    with path.open("wb") as file:
        file.write(header)  # the zeros behind it take no room on the disk
        file.truncate(len(header) + sum(padded(tensor.n_bytes) for tensor in table))
