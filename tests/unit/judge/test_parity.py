"""Trainer against GGUF in the real llama.cpp on a tiny model; a changed file, template or tokenizer is noticed."""

import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from ai_forge.errors import RefusedError
from ai_forge.judge import parity as parity_module
from ai_forge.judge.exporter import convert_to_gguf
from ai_forge.judge.parity import Files, Parity, ServedFile, bucketed_kl, compare, first_difference
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message, messages_for
from ai_forge.serving.llama_server import LlamaServer
from ai_forge.training.backends.torch_model import TorchGenerator
from tiny_models import make_tiny, with_a_merge_onto_codes, with_another_rope, with_gemma_tokenizer
from tiny_training import raft_examples

CHATS = [messages_for(e.question, e.shown_documents[:1]) for e in raft_examples(4)]
N_TOKENS = 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("parity") / "model", hidden=256, inner=256, dtype="F16")


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[dict[str, LlamaServer]]:
    other = make_tiny(folder.parent / "other", hidden=256, inner=256, dtype="F16", seed=9)
    paths = {
        "f16": convert_to_gguf(folder, folder.parent / "f16.gguf", "f16"),
        "q4_k_m": convert_to_gguf(folder, folder.parent / "q4.gguf", "q4_k_m"),
        "other": convert_to_gguf(other, folder.parent / "other.gguf", "f16"),
    }
    servers = {name: LlamaServer(path, 512, 1) for name, path in paths.items()}
    yield servers
    for server in servers.values():
        server.close()


def compared(folder: Path, f16: ServedFile, deployed: ServedFile, quantization: str) -> Parity:
    tokenizer = ChatTokenizer(folder)
    trainer = TorchGenerator.load(folder, tokenizer.end_of_turn_id, exact=True)
    told: list[tuple[int, int]] = []
    files = Files(f16, deployed, quantization)
    result = compare(trainer, files, tokenizer, CHATS, N_TOKENS, lambda done, total: told.append((done, total)))
    assert told[-1] == (4, 4)
    return result


def test_the_exported_file_is_the_trained_model(folder: Path, served: dict[str, LlamaServer]) -> None:
    parity = compared(folder, served["f16"], served["q4_k_m"], "q4_k_m")
    assert (parity.n_prompts, parity.same_prompt, parity.same_greedy + parity.near_ties) == (4, 4, 4)
    assert len(parity.first_differences) == parity.near_ties <= 1
    assert parity.kl_mean is not None
    assert parity.kl_high is not None
    assert 0 < parity.kl_mean <= parity.kl_high
    parity.require()
    assert parity.rows["first 8 greedy tokens of the f16 file equal the trainer's"].startswith(
        f"{parity.same_greedy} of 4"
    )
    assert "divergence of q4_k_m from the trainer" in parity.rows
    # what is deployed is held to its own words: four bits turn near ties round
    prompt = ChatTokenizer(folder).encode_prompt(CHATS[0])
    own = [token for token, _ in served["q4_k_m"].greedy_top(prompt, N_TOKENS, 1)]
    assert list(parity.answers[0]) == own[: len(parity.answers[0])]


def test_a_gemma_without_a_system_turn_is_served_as_trained(tmp_path: Path) -> None:
    """SentencePiece, a begin token that llama.cpp adds itself, and a template of ours in place of one that refuses."""
    folder = with_gemma_tokenizer(make_tiny(tmp_path / "model", "gemma2", hidden=256, inner=256, dtype="F16"))
    tokenizer = ChatTokenizer(folder)
    assert tokenizer.encode_prompt(CHATS[0])[:2] == [1, 4]
    (folder / "chat_template.jinja").write_text(tokenizer.chat_template)  # as the merge leaves it
    with LlamaServer(convert_to_gguf(folder, tmp_path / "f16.gguf", "f16"), 512, 1) as server:
        parity = compared(folder, server, server, "f16")
    assert (parity.same_prompt, parity.same_greedy + parity.near_ties) == (4, 4)


def test_divergence_of_f16_is_far_below_that_of_four_bits(folder: Path, served: dict[str, LlamaServer]) -> None:
    exact = compared(folder, served["f16"], Same(served["f16"]), "f16").kl_mean
    four_bits = compared(folder, served["f16"], served["q4_k_m"], "q4_k_m").kl_mean
    assert exact is not None
    assert four_bits is not None
    assert exact < 1e-3
    assert four_bits > 10 * exact


def test_where_f16_is_deployed_there_is_no_divergence_to_tell(folder: Path, served: dict[str, LlamaServer]) -> None:
    parity = compared(folder, served["f16"], served["f16"], "f16")
    assert (parity.kl_mean, parity.kl_high) == (None, None)
    assert len(parity.rows) == 2


def test_another_model_is_noticed(folder: Path, served: dict[str, LlamaServer]) -> None:
    parity = compared(folder, served["other"], served["other"], "f16")
    assert parity.same_prompt == 4
    assert parity.same_greedy == 0
    with pytest.raises(RefusedError) as caught:
        parity.require()
    assert caught.value.message == (
        "4 of 4 greedy answers of the f16 file are not the trainer's, where the trainer is sure of its token; "
        "at most 5% may be."
    )


@pytest.mark.parametrize("plant", [with_another_rope, with_a_merge_onto_codes])
def test_a_wrong_rope_and_a_wrong_merge_are_refused(
    plant: Callable[[Path], None], folder: Path, tmp_path: Path
) -> None:
    wrong = shutil.copytree(folder, tmp_path / "wrong")
    plant(wrong)
    with LlamaServer(convert_to_gguf(wrong, tmp_path / "wrong.gguf", "f16"), 512, 1) as server:
        parity = compared(folder, server, server, "f16")
    assert parity.same_prompt == 4
    with pytest.raises(RefusedError, match="greedy answers of the f16 file are not the trainer's"):
        parity.require()


def test_a_wrong_stop_token_is_refused(folder: Path, tmp_path: Path) -> None:
    """Its first words are right, so only making it say the token tells that it would not end there."""
    right = shutil.copytree(folder, tmp_path / "right")
    for name in ("tokenizer.json", "tokenizer_config.json"):  # llama.cpp stops at the usual ends whatever a file says
        (right / name).write_text((right / name).read_text().replace("<|im_end|>", "<|over|>"))
    wrong = shutil.copytree(right, tmp_path / "wrong")
    settings = json.loads((wrong / "tokenizer_config.json").read_text())
    (wrong / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    with LlamaServer(convert_to_gguf(right, tmp_path / "right.gguf", "f16"), 512, 1) as server:
        compared(right, server, server, "f16").require()
    with LlamaServer(convert_to_gguf(wrong, tmp_path / "wrong.gguf", "f16"), 512, 1) as server:
        parity = compared(right, server, server, "f16")
    assert (parity.same_prompt, parity.same_greedy + parity.near_ties) == (4, 4)
    with pytest.raises(RefusedError, match=r"^llama\.cpp does not stop at the token that ends an answer"):
        parity.require()


class Same:
    """A served file under another identity, with chosen faults."""

    def __init__(self, server: LlamaServer, *, template: str = "", shift: int = 0) -> None:
        self._server, self._template, self._shift = server, template, shift

    def render(self, messages: Sequence[Message]) -> str:
        return self._template + self._server.render(messages)

    def tokenize(self, text: str, *, add_special: bool = False) -> list[int]:
        return [token + self._shift for token in self._server.tokenize(text, add_special=add_special)]

    def greedy_top(self, prompt: Sequence[int], max_tokens: int, n_top: int) -> list[tuple[int, Mapping[int, float]]]:
        return list(self._server.greedy_top(prompt, max_tokens, n_top))

    def stops_at(self, prompt: Sequence[int], token: int) -> bool:
        return self._server.stops_at(prompt, token)


@pytest.mark.parametrize("fault", [{"template": "<|im_start|>system\nYou are helpful.<|im_end|>\n"}, {"shift": 1}])
def test_another_prompt_is_refused(folder: Path, served: dict[str, LlamaServer], fault: dict[str, object]) -> None:
    parity = compared(folder, Same(served["f16"], **fault), served["f16"], "f16")  # type: ignore[arg-type]
    assert (parity.same_prompt, parity.same_greedy + parity.near_ties) == (0, 4)
    with pytest.raises(RefusedError, match=r"^llama\.cpp makes another prompt than the trainer of 4 of 4 chats\."):
        parity.require()


@pytest.mark.parametrize(("near_tie", "near_ties"), [(50.0, 4), (0.0, 0)])
def test_a_near_tie_is_no_wrong_export(
    folder: Path, served: dict[str, LlamaServer], near_tie: float, near_ties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class SecondBest(Same):
        def greedy_top(
            self, prompt: Sequence[int], max_tokens: int, n_top: int
        ) -> list[tuple[int, Mapping[int, float]]]:
            (best, top), *rest = super().greedy_top(prompt, max_tokens, 2)
            return [(next(token for token in top if token != best), top), *rest]

    monkeypatch.setattr(parity_module, "NEAR_TIE_NATS", near_tie)
    parity = compared(folder, SecondBest(served["f16"]), served["f16"], "f16")
    assert (parity.same_greedy, parity.near_ties, parity.first_differences) == (0, near_ties, (0, 0, 0, 0))
    if near_ties:
        parity.require()
        assert list(parity.rows.values())[1] == "0 of 4, 4 more differ at a near tie"


@pytest.mark.parametrize(("same", "ties", "refused"), [(20, 0, False), (19, 0, False), (18, 1, False), (18, 0, True)])
def test_one_answer_in_twenty_may_differ(same: int, ties: int, refused: bool) -> None:
    parity = Parity(
        n_prompts=20, n_tokens=32, same_prompt=20, same_greedy=same, near_ties=ties, first_differences=(3,),
        kl_mean=None, kl_high=None, quantization="f16",
    )  # fmt: skip
    if refused:
        with pytest.raises(RefusedError):
            parity.require()
    else:
        parity.require()


def test_a_quantization_that_changes_the_model_is_refused() -> None:
    sound = Parity(
        n_prompts=20, n_tokens=32, same_prompt=20, same_greedy=20, near_ties=0, first_differences=(),
        kl_mean=0.04, kl_high=0.1, quantization="q4_k_m",
    )  # fmt: skip
    sound.require()
    with pytest.raises(
        RefusedError, match=r"The q4_k_m file is 3\.20 nats per token from the trainer; at most 1 may be"
    ):
        sound.model_copy(update={"kl_mean": 3.2}).require()


def test_bucketed_divergence_is_a_lower_bound() -> None:
    generator = np.random.default_rng(0)
    p, q = (generator.dirichlet(np.ones(50)) for _ in range(2))
    exact = float((p * np.log(p / q)).sum())
    log_p = np.log(p).astype(np.float32)
    top = [int(i) for i in np.argsort(-q)]
    assert bucketed_kl(log_p, {i: math.log(q[i]) for i in top}) == pytest.approx(exact, rel=1e-5)
    bounds = [bucketed_kl(log_p, {i: math.log(q[i]) for i in top[:n]}) for n in (1, 10, 40)]
    assert 0 <= bounds[0] <= bounds[1] <= bounds[2] <= exact
    assert bucketed_kl(np.log(q).astype(np.float32), {i: math.log(q[i]) for i in top[:5]}) < 1e-6


def test_what_is_not_told_counts_as_one_token() -> None:
    truth = np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32))
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert bucketed_kl(truth, {0: math.log(0.25)}) == pytest.approx(expected, rel=1e-5)


def test_the_first_difference() -> None:
    assert first_difference([], []) is None
    assert first_difference([1], []) == 0
    assert first_difference([1, 2, 3], [1, 2]) == 2
    assert first_difference([1, 9, 3], [1, 2, 3]) == 1
