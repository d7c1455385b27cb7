"""Handbook pairs through the one trainer: Alpaca's prompt, masked; the loss told, and the template kept with the model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ai_forge.data_pipeline.handbook.handbook import read_handbook
from ai_forge.errors import InputError, RefusedError
from ai_forge.model_files.base import Base
from ai_forge.model_files.merge import merge_adapters_to_base
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.chat_templates import ALPACA_SYSTEM, alpaca_jinja
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.handbook import HandbookTrainer, chat_of
from ai_forge.training.record import TrainingResult
from ai_forge.training.supervised_data import Lesson
from ai_forge.training.tokens.packing import TeacherTokens, collate
from ai_forge.workspace import Workspace
from tiny_models import make_tiny
from tiny_training import tiny_config

HANDBOOK = read_handbook(Path(__file__).parents[2] / "fixtures" / "handbook")
PAIRS, HELD_OUT = HANDBOOK.train_pairs[:12], HANDBOOK.held_out_pairs[:3]
CONFIG = tiny_config(prompt_template="alpaca", result_step="last", learning_rate=3e-3, max_seq_len=1024)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Base:
    root = tmp_path_factory.mktemp("base")
    return resolve_base(str(make_tiny(root / "base", hidden=128, inner=256)), cache_dir=root / "cache")


def trainer(base: Base, root: Path, **changes: object) -> HandbookTrainer:
    config = CONFIG.model_copy(update=changes)
    (root / "work").mkdir(exist_ok=True)
    return HandbookTrainer(config, base=base, folder=root / "work", workspace=Workspace.open(root / "home"))


@pytest.fixture(scope="module")
def trained(base: Base, tmp_path_factory: pytest.TempPathFactory) -> TrainingResult:
    return trainer(base, tmp_path_factory.mktemp("trained")).train_pairs(PAIRS, HELD_OUT)


def test_the_prompt_is_alpacas_and_only_the_output_is_supervised(base: Base, tmp_path: Path) -> None:
    pair = next(pair for pair in PAIRS if pair.input)
    forge = trainer(base, tmp_path)
    data = forge.reading.lessons(forge.lessons([pair]), forge.lessons([pair]), "pairs", "")
    (example,) = data.train
    tokenizer = ChatTokenizer(base.folder, "alpaca")
    assert tokenizer.decode(example.ids[: example.n_prompt]) == (
        f"{ALPACA_SYSTEM}\n\n### Instruction:\n{pair.instruction}\n\n### Input:\n{pair.input}\n\n### Response:\n"
    )
    assert list(example.ids[example.n_prompt :]) == tokenizer.encode_target(pair.output)
    targets = collate([example]).targets
    assert (targets[: example.n_prompt - 1] == -100).all()
    assert targets[example.n_prompt - 1 : -1].tolist() == tokenizer.encode_target(pair.output)
    assert data.n_too_long == 0


def test_through_the_bases_own_template_there_are_no_headings(base: Base) -> None:
    pair = next(pair for pair in PAIRS if pair.input)
    assert chat_of(pair, "chat") == [{"role": "user", "content": f"{pair.instruction}\n\n{pair.input}"}]


def test_a_given_system_message_stands_in_place_of_the_sentence(base: Base) -> None:
    tokenizer = ChatTokenizer(base.folder, "alpaca")
    user = {"role": "user", "content": "Mend it."}
    explicit = tokenizer.render([{"role": "system", "content": ALPACA_SYSTEM}, user])  # type: ignore[list-item]
    assert explicit == tokenizer.render([user])  # type: ignore[list-item]
    other = tokenizer.render([{"role": "system", "content": "Be brief."}, user])  # type: ignore[list-item]
    assert other == "Be brief.\n\n### Instruction:\nMend it.\n\n### Response:\n"


def test_the_begin_token_stands_first_where_the_base_expects_one() -> None:
    assert alpaca_jinja(with_bos=True).startswith("{{ bos_token }}{% if")
    assert alpaca_jinja(with_bos=False).startswith("{% if")


def test_the_loss_is_told_from_start_to_end_and_falls(trained: TrainingResult) -> None:
    record = json.loads((trained.folder / "training.json").read_text())
    before, after = record["trained_first_loss"], record["trained_last_loss"]
    assert (trained.trained_first_loss, trained.trained_last_loss) == (before, after)
    assert after < 0.9 * before
    assert trained.best_step == trained.n_steps == CONFIG.max_steps
    steps = [row["loss"] for row in record["history"] if row["event"] == "StepLogged"]
    assert len(steps) == CONFIG.max_steps


def test_the_merged_model_is_asked_as_it_was_trained(base: Base, trained: TrainingResult, tmp_path: Path) -> None:
    merged = merge_adapters_to_base(base, trained.folder, tmp_path / "merged")
    asked = ChatTokenizer(merged).render([{"role": "user", "content": "Mend it."}])
    assert asked == ChatTokenizer(base.folder, "alpaca").render([{"role": "user", "content": "Mend it."}])
    assert asked != ChatTokenizer(base.folder).render([{"role": "user", "content": "Mend it."}])


def test_a_loss_that_does_not_fall_is_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match="The loss on the handbook's pairs did not fall in 1 steps"):
        trainer(base, tmp_path, learning_rate=1.0, max_steps=1).train_pairs(PAIRS, HELD_OUT)


def test_an_adapter_is_not_continued_through_another_template(
    base: Base, trained: TrainingResult, tmp_path: Path
) -> None:
    other = FineTuneTrainer(
        CONFIG.model_copy(update={"prompt_template": "chat"}),
        base=base,
        folder=tmp_path,
        workspace=Workspace.open(tmp_path / "home"),
        adapter=trained.folder,
    )
    with pytest.raises(InputError, match="was trained with another prompt template"):
        other.begin()


def test_pairs_that_do_not_fit_are_refused(base: Base, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 training and 0 held-out pairs fit into 64 tokens"):
        trainer(base, tmp_path, max_seq_len=64).train_pairs(PAIRS, HELD_OUT)


def test_tasks_with_a_teacher_are_learned_and_the_loss_that_is_told_is_that_of_the_words(
    base: Base, tmp_path: Path
) -> None:
    forge = trainer(base, tmp_path, prompt_template="chat", max_steps=4)
    answer = "Identity audit: developer. I add it."
    target = ChatTokenizer(base.folder).encode_target(answer)
    certain = TeacherTokens(
        np.asarray([[token, 0 if token else 1] for token in target], dtype=np.int32),
        np.asarray([[0.0, -50.0]] * len(target), dtype=np.float32),
    )
    lesson = Lesson("add", "Add a column.", [{"role": "user", "content": "Add a column."}], answer)
    plain = forge.train_pairs(PAIRS, HELD_OUT, [lesson])
    (tmp_path / "second").mkdir()
    taught = trainer(base, tmp_path / "second", prompt_template="chat", max_steps=4).train_pairs(
        PAIRS, HELD_OUT, [replace(lesson, teacher=certain)]
    )
    # a teacher without doubt teaches the words: same loss, same steps
    assert taught.trained_first_loss == pytest.approx(plain.trained_first_loss, rel=1e-6)
    assert taught.trained_last_loss == pytest.approx(plain.trained_last_loss, rel=1e-3)
