"""The second phase, on preference pairs, from an adapter that was trained before.

    python -m ai_forge.training.dpo ADAPTER PREFS.jsonl OUTPUT --base BASE [--config FILE] [--set training.dpo_loss=ipo]

`PREFS.jsonl` holds one `PreferencePair` a line (`ai-forge data preferences` writes them). One pair in ten, by its id, is held
out: the adapter with the lowest loss on those is the result. It lies in OUTPUT as a training leaves it and is merged,
converted and exported in the same way. The same command continues a run that was cut off.
"""

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import yaml

from ai_forge.cancel import CancelToken, cancelled_by_interrupt
from ai_forge.config import FineTuneConfig, environment_layer, file_layer, load_settings
from ai_forge.data_pipeline.schemas.preference_pairs import PreferencePair
from ai_forge.errors import AIForgeError, InputError
from ai_forge.events import StageProgress
from ai_forge.json_lines import read_jsonl
from ai_forge.model_files.adapter import WEIGHTS
from ai_forge.prompting.prompt import Message
from ai_forge.training.bases.resolve import resolve_base
from ai_forge.training.distributed.cluster import in_cluster
from ai_forge.training.distributed.launcher import run_trainer
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.training.loop import Task
from ai_forge.training.losses import PreferenceObjective, TokenizedPair, with_reference
from ai_forge.training.plan import Schedule, probe_speed
from ai_forge.training.record import PreferencePhase, TrainingRecord, TrainingResult
from ai_forge.training.tokens.packing import require_both_sides, tokenize_chat
from ai_forge.workspace import Workspace, atomic_write, file_sha256, read_json, stage_key

HELD_OUT = 10  # one of so many pairs


class PreferenceTrainer(FineTuneTrainer):
    """`FineTuneTrainer` whose examples are pairs of answers and whose start is a trained `adapter`."""

    def train_preferences(
        self, train_pairs: Sequence[PreferencePair], eval_pairs: Sequence[PreferencePair]
    ) -> TrainingResult:
        """The second phase: make the chosen answers likelier than the rejected ones, from the adapter that was given.

        The reference is the model as that adapter makes it (for PiSSA: on its residual); its log-probabilities are
        computed before the first step and kept in the work folder.

        Raises:
            InputError: no adapter was given, or no pair fits into `max_seq_len`.
            RefusedError: the loss diverged.
        """
        require_whole_base(self.config)
        if self.adapter is None:
            raise InputError(
                "Preference training needs a trained adapter to start from.", "train one first, and give its folder."
            )
        start, _ = self.group.broadcast(self.begin)
        config = self.config.model_copy(
            update={"learning_rate": self.config.dpo_learning_rate, "num_epochs": self.config.dpo_epochs}
        )
        (train, n_long), (held_out, n_long_held_out) = (self._pairs(pairs) for pairs in (train_pairs, eval_pairs))
        n_too_long, advice = n_long + n_long_held_out, "raise training.max_seq_len, or give more pairs."
        require_both_sides(len(train), len(held_out), n_too_long, config.max_seq_len, "pairs", advice)
        trainee = self.backend.trainee.from_adapter(self.base.folder, start, config)
        # before the first step: the reference is the model as it stands now, and a resumed run reads it from the folder
        train = self.group.broadcast(lambda: self._with_reference(trainee, start, train))
        held_out = self.group.broadcast(lambda: self._with_reference(trainee, start, held_out))
        per_step = config.micro_batch_size * config.grad_accum_steps
        n_steps = math.ceil(config.num_epochs * len(train) / per_step)
        if config.max_steps is not None:
            n_steps = min(n_steps, config.max_steps)
        objective = PreferenceObjective.of(config)
        speed = probe_speed(trainee, train, config, objective, group=self.group, emit=self._emit)
        tokens_of_pair = sum(len(example.ids) for example in objective.examples(train)) / len(train)
        expected_s = tokens_of_pair * per_step * n_steps / speed
        schedule = Schedule(n_steps, len(train), speed, expected_s, f"{len(train)} pairs")
        schedule = self.group.broadcast(lambda: schedule)  # rank 0's, for each process has measured a speed of its own
        result = self._run(trainee, Task(train, held_out, objective), config, schedule)
        phase = PreferencePhase(pairs=len(train), loss=config.dpo_loss)
        record = TrainingRecord(**self._recorded(config, result), n_too_long=n_long, preferences=phase)
        return self.group.broadcast(lambda: self._finish(trainee, start, record))

    def _pairs(self, pairs: Sequence[PreferencePair]) -> tuple[list[TokenizedPair], int]:
        """The pairs that fit into `max_seq_len` tokens, and how many did not."""
        made = []
        for pair in pairs:
            prompt: list[Message] = [{"role": turn.role, "content": turn.content} for turn in pair.prompt]
            chosen = tokenize_chat(prompt, pair.chosen, self.tokenizer, pair.id)
            rejected = tokenize_chat(prompt, pair.rejected, self.tokenizer, pair.id)
            made.append(TokenizedPair(chosen, rejected))
        kept = [p for p in made if max(len(p.chosen.ids), len(p.rejected.ids)) <= self.config.max_seq_len]
        return kept, len(made) - len(kept)

    def _with_reference(self, trainee: Any, start: Path, pairs: list[TokenizedPair]) -> list[TokenizedPair]:
        """`pairs` with the log-probabilities of the adapter in `start`, computed once."""
        adapter = file_sha256(start / WEIGHTS)
        path = self.folder / f"reference-{stage_key(adapter=adapter, pairs=[asdict(pair) for pair in pairs])}.json"
        known = read_json(path)
        if known is None:
            self._emit(StageProgress("train", 0, 0, f"reference log-probabilities of {len(pairs)} pairs"))
            pairs = with_reference(trainee, pairs, self.cancel.check)
            values = [(pair.reference_chosen, pair.reference_rejected) for pair in pairs]
            atomic_write(path, json.dumps({"log_probs": values}))
            return pairs
        return [
            replace(pair, reference_chosen=chosen, reference_rejected=rejected)
            for pair, (chosen, rejected) in zip(pairs, known["log_probs"], strict=True)
        ]


def require_whole_base(config: FineTuneConfig) -> None:
    """Raises `InputError` where the base is to be cut into pieces."""
    if config.sharded:
        raise InputError("Preference training cannot shard the base.", "leave training.sharded out.")


def split_pairs(pairs: list[PreferencePair]) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """Pairs to train on and to judge by: a pair's id decides, so the split does not change when pairs are added.

    Raises:
        InputError: there are too few to hold one out.
    """
    if len(pairs) < 2:
        raise InputError(f"{len(pairs)} preference pairs are too few.", "give at least two.")
    ordered = sorted(pairs, key=lambda pair: pair.id)
    held_out = [pair for pair in ordered if int(pair.id, 16) % HELD_OUT == 0]
    if len(held_out) in (0, len(ordered)):  # few pairs may all fall on one side
        held_out = ordered[:1]
    kept = {pair.id for pair in held_out}
    return [pair for pair in ordered if pair.id not in kept], held_out


def main(words: list[str] | None = None) -> int:
    """The command; prints JSON, returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m ai_forge.training.dpo", description=__doc__.splitlines()[0])
    parser.add_argument("adapter", type=Path, help="the folder of a trained adapter")
    parser.add_argument("pairs", type=Path, help="preference pairs, one JSON object a line")
    parser.add_argument("output", type=Path, help="where to work and leave the result")
    parser.add_argument("--base", required=True, help="the base that the adapter was trained on")
    parser.add_argument("--config", type=Path, help="a YAML file with settings")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting")
    parser.add_argument("--home", type=Path, help="where bases are kept; AI_FORGE_HOME otherwise")
    chosen = parser.parse_args(words)
    try:
        with cancelled_by_interrupt() as cancel:
            result = in_cluster(lambda: _prefer(chosen, cancel))
    except AIForgeError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    if result is not None:
        print(json.dumps(asdict(result), indent=1, default=str))
    return 0


def _prefer(chosen: argparse.Namespace, cancel: CancelToken) -> TrainingResult:
    flags: dict[str, object] = {}
    for text in chosen.set:
        key, _, value = text.partition("=")
        flags[key] = yaml.safe_load(value)
    flags["training.base_model"] = chosen.base
    layers = [environment_layer(), ("flag", flags)]
    if chosen.config:
        layers.insert(0, file_layer(chosen.config))  # the earlier a layer, the less it counts
    config = load_settings(*layers).settings.training
    workspace = Workspace.open(chosen.home)
    train, held_out = split_pairs(read_jsonl(chosen.pairs, PreferencePair))
    chosen.output.mkdir(parents=True, exist_ok=True)
    result: TrainingResult = run_trainer(
        PreferenceTrainer,
        config,
        "train_preferences",
        train,
        held_out,
        emit=lambda event: print(json.dumps({type(event).__name__: asdict(event)}), file=sys.stderr),
        cancel=cancel,
        base=resolve_base(chosen.base, cache_dir=workspace.cache_dir),
        folder=chosen.output,
        workspace=workspace,
        adapter=chosen.adapter,
    )
    return result


if __name__ == "__main__":
    from ai_forge.training import dpo  # so that other processes find the trainer under its module's name

    sys.exit(dpo.main())
