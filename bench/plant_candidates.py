"""Planted candidates through a guardian's cycle: is any degraded one deployed, are better ones, does a rollback give the answers back?

    python bench/plant_candidates.py                        (50 degraded, 6 better: ten minutes)
    python bench/plant_candidates.py --share 10 --offset 7  (every tenth, from the eighth on: what CI runs)

A random base learns nothing that a judge would see, so this world is made backwards: a tiny model is taught the judge's own
questions and some code, and the base is that model with something of low rank taken out of every matrix. The adapter that puts
it back is better by what is measured, and everything that is done to it or to its files can be planted. What is replaced in the
cycle is the stage `train` (it lays down the planted adapter, by real training where the kind says so) and, where a file is
damaged, what `export` leaves behind. Merging, the answers from the exported files, parity, the gate, the deployment with its checks
and the registry are the product's. It says nothing of how well anything learns.

Told on stderr for each candidate, a JSON report on stdout; ends with 1 where a degraded one is deployed, a better one is not, or
answers after a rollback are not byte for byte those before.
"""

import argparse
import dataclasses
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from ai_forge.antigravity_agent.cycle import CycleRecord
from ai_forge.antigravity_agent.repo_guardian import RepoGuardian
from ai_forge.config import ALL_LINEAR_MODULES, load_settings
from ai_forge.data_pipeline.schemas import RAFTExample
from ai_forge.data_pipeline.search.context import documents_for
from ai_forge.judge.questions.held_out import questions_of
from ai_forge.model_files.adapter import INITIAL, WEIGHTS
from ai_forge.pipeline import actions
from ai_forge.pipeline.recipes import REPOSITORY, Recipe
from ai_forge.pipeline.run import new_run, read_run
from ai_forge.pipeline.runner import Runner
from ai_forge.pipeline.stage import StageContext, Summary
from ai_forge.pipeline.stages.evaluate import held_out_questions
from ai_forge.pipeline.stages.export import EXPORT
from ai_forge.pipeline.stages.report import ReportSummary
from ai_forge.pipeline.stages.repository import TRAIN
from ai_forge.pipeline.stages.train import TrainSummary, trainer_parts
from ai_forge.prompting.prompt import messages_for
from ai_forge.serving.registry import Registry
from ai_forge.serving.served_model import ServedModel
from ai_forge.training.forge import FineTuneTrainer
from ai_forge.workspace import Workspace

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from cli_runs import SETTINGS, stdlib_copy
from tiny_models import make_tiny, python_files

N_QUESTIONS, RANK, TAKEN_OUT = 12, 8, 0.7
TEACHING_STEPS, WINDOW = 200, 256
Tensors = dict[str, np.ndarray]
Examples = list[RAFTExample]


# -- the world: a model that knows, and a base that is it with something taken out ------------------------------------------


def settings_of(base: Path) -> dict[str, Any]:
    """Of every cycle: a base and a judge of seconds."""
    training = {"rank": RANK, "alpha": RANK, "init_method": "lora", "target_modules": ALL_LINEAR_MODULES}
    training |= {"max_steps": 40, "eval_steps": 40, "save_steps": 40, "micro_batch_size": 6, "learning_rate": 3e-3}
    training |= {"num_epochs": 1000, "replay_share": 0.0, "base_model": str(base)}
    judge = {"n_questions": N_QUESTIONS, "retrieved_documents": 1, "max_new_tokens": 160, "code_bytes": 16_000}
    own = {f"training.{key}": value for key, value in training.items()} | {f"judge.{k}": v for k, v in judge.items()}
    return SETTINGS | own | {"guardian.desktop": False, "guardian.retries": 0, "runtime.deploy": "if-better"}


def lessons(runner: Runner) -> list[tuple[list[int], list[int]]]:
    """(prompt, answer) of the judge's questions, bare and with what is found, and windows of the code that is trained on."""
    with runner:
        runner.run_until("index")
        runner.run_until("dataset")
        outputs, opened = runner.outputs(), runner.opened
        index, tokenizer, settings = opened.index(outputs), opened.tokenizer, runner.run.settings
        asked = questions_of(opened.examples(outputs, "test"), {entry.id for entry in index.entries}, settings.judge)
        rows = []
        for one in asked:
            found = documents_for(one.question, index, k=1, max_tokens=settings.synthesis.max_context_tokens)
            target = tokenizer.encode_target(one.target)
            rows += [(tokenizer.encode_prompt(messages_for(one.question, shown)), target) for shown in ((), found)]
        for path in sorted(runner.run.repository.glob("*.py")):
            rows.append(([1], tokenizer.encode(path.read_text(encoding="utf-8")[:2000])[:WINDOW]))
    return rows


def teach(base: Path, rows: list[tuple[list[int], list[int]]], seed: int) -> None:
    """Train all of a model's weights on `rows` and write it back."""
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.normal_(0, 0.05)  # the tests' bases are louder, and learn slowly
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=TEACHING_STEPS, pct_start=0.1)
    chance = random.Random(seed)
    answers, code = [row for row in rows if len(row[0]) > 1], [row for row in rows if len(row[0]) == 1]
    for _ in range(TEACHING_STEPS):
        batch = chance.sample(answers, 12) + chance.sample(code, 3)
        longest = max(len(prompt) + len(answer) for prompt, answer in batch)
        ids, labels = torch.zeros(len(batch), longest, dtype=torch.long), torch.full((len(batch), longest), -100)
        for place, (prompt, answer) in enumerate(batch):
            end = len(prompt) + len(answer)
            ids[place, :end] = torch.tensor([*prompt, *answer])
            labels[place, len(prompt) : end] = torch.tensor(answer)
        loss = model(input_ids=ids, labels=labels).loss  # causal: what is padded behind changes nothing before it
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    print(f"taught: loss {float(loss):.3f}", file=sys.stderr, flush=True)
    save_file({name: value.detach().numpy() for name, value in model.named_parameters()}, base / "model.safetensors")


def take_out(base: Path, seed: int) -> Tensors:
    """Take something of low rank out of every linear layer; the adapter that puts it back."""
    generator = np.random.default_rng(seed)
    weights, adapter = load_file(base / "model.safetensors"), {}
    for name, weight in weights.items():
        if not name.endswith("_proj.weight"):
            continue
        n_out, n_in = weight.shape
        a = generator.normal(0, 1, (RANK, n_in)).astype(np.float32)
        b = generator.normal(0, 1, (n_out, RANK)).astype(np.float32)
        b *= TAKEN_OUT * np.linalg.norm(weight) / np.linalg.norm(b @ a)
        weights[name] = weight - b @ a
        layer = f"base_model.model.{name.removesuffix('.weight')}"
        adapter |= {f"{layer}.lora_A.weight": a, f"{layer}.lora_B.weight": b}
    save_file(weights, base / "model.safetensors")
    return adapter


# -- what is planted --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One candidate: how its adapter is made of the good one, what it is trained on then, what is done to its file."""

    kind: str
    seed: int
    change: Callable[[Tensors, np.random.Generator], Tensors] = lambda good, _: good
    taught: Callable[[Examples, Examples, random.Random], Examples] | None = None
    damage: Callable[[Path, StageContext], None] | None = None
    steps: int = 40

    @property
    def is_better(self) -> bool:
        return self.kind == "better"


def scaled(factor: float) -> Callable[[Tensors, np.random.Generator], Tensors]:
    """The good adapter, `factor` times as strong."""
    return lambda good, _: {key: value * np.float32(factor if "lora_B" in key else 1) for key, value in good.items()}


def noisy(share: float) -> Callable[[Tensors, np.random.Generator], Tensors]:
    """The good adapter with noise of `share` of its strength."""

    def change(good: Tensors, chance: np.random.Generator) -> Tensors:
        return {k: v + (share * v.std() * chance.normal(0, 1, v.shape)).astype(np.float32) for k, v in good.items()}

    return change


def random_pair(good: Tensors, chance: np.random.Generator) -> Tensors:
    """Random numbers as strong as the good adapter's."""
    return {k: (v.std() * chance.normal(0, 1, v.shape)).astype(np.float32) for k, v in good.items()}


def vandalised(asked: Examples, trained: Examples, chance: random.Random) -> Examples:
    """What is trained on where someone wrote nonsense over the documentation."""
    text = "this does magic, trust me. " * 6
    return [one.model_copy(update={"reasoning": text, "final_answer": text}) for one in chance.sample(trained, 40)]


def answers_of_others(share: float) -> Callable[[Examples, Examples, random.Random], Examples]:
    """The judge's questions, a `share` of them with the answer of another."""

    def teach_wrong(asked: Examples, trained: Examples, chance: random.Random) -> Examples:
        n = round(share * len(asked))
        chosen = chance.sample(range(len(asked)), n)
        wrong = dict(zip(chosen, [*chosen[1:], *chosen[:1]], strict=True))
        pairs = ((one, asked[wrong.get(place, place)]) for place, one in enumerate(asked))
        return [
            one.model_copy(update={"reasoning": other.reasoning, "final_answer": other.final_answer})
            for one, other in pairs
        ]

    return teach_wrong


def mumbling(asked: Examples, trained: Examples, chance: random.Random) -> Examples:
    """The right answers, and for everything else the same few letters."""
    junk = [
        one.model_copy(update={"reasoning": "z q x " * 30, "final_answer": ""}) for one in chance.sample(trained, 12)
    ]
    return [*asked, *junk]


def in_file(old: bytes, new: bytes) -> Callable[[Path, StageContext], None]:
    """Other bytes of the same length: the chat template of a file."""

    def damage(path: Path, _: StageContext) -> None:
        whole = path.read_bytes()
        assert len(old) == len(new), "the file's offsets must hold"
        assert old in whole, old
        path.write_bytes(whole.replace(old, new))

    return damage


def cut_to(share: float) -> Callable[[Path, StageContext], None]:
    """Only the first `share` of a file."""
    return lambda path, _: path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)]) and None


def overwritten(first: float, last: float) -> Callable[[Path, StageContext], None]:
    """Nonsense in place of some of a file's weights."""

    def damage(path: Path, context: StageContext) -> None:
        whole = bytearray(path.read_bytes())
        begin, end = int(first * len(whole)), int(last * len(whole))
        halves = np.random.default_rng(0).normal(0, 1, (end - begin) // 2).astype(np.float16)
        begin += begin % 2
        whole[begin : begin + halves.nbytes] = halves.tobytes()
        path.write_bytes(bytes(whole[: path.stat().st_size]))

    return damage


def bases_file(path: Path, context: StageContext) -> None:
    """The base's own file in place of the tuned one."""
    from ai_forge.judge.exporter import convert_to_gguf

    path.unlink()
    convert_to_gguf(context.opened.base.folder, path, "f16", name="base")


TEMPLATES = (
    (b"<|im_start|>assistant", b"<|im_start|>Assistant"),
    (b"add_generation_prompt", b"add_generation_prompx"),
    (b"message['content'] +", b"message['contenx'] +"),
    (b"'<|im_start|>' + message", b"'<|im_stars|>' + message"),
    (b"message['role'] + '\n'", b"message['role'] + ' '"),
)


def candidates() -> Iterator[Candidate]:
    """50 degraded ones of ten kinds, five of each; a better one at the beginning and after every ten."""
    for n in range(5):
        yield Candidate("better", n, noisy(0.01 * n))
        # not seed 0: what was taken out of the base was drawn with it, so the same numbers would put it back
        yield Candidate("random adapter", n or 5, random_pair)
        yield Candidate("adapter scaled", n, scaled((4.0, 8.0, -1.0, 0.1, -4.0)[n]))
        yield Candidate("equal to base", n, scaled(0.0 if n == 0 else 1e-6 * n))
        yield Candidate("over-trained on vandalised documentation", n, taught=vandalised)
        yield Candidate("tuned on wrong facts", n, taught=answers_of_others(1.0))
        yield Candidate("poorer than what is active", n, taught=answers_of_others(0.6), steps=60)
        yield Candidate("taught to mumble", n, taught=mumbling, steps=60)
        yield Candidate("template broken", n, damage=in_file(*TEMPLATES[n]))
        yield Candidate("file cut", n, damage=cut_to((0.1, 0.5, 0.9, 0.99, 0.9999)[n]))
        damaged = (bases_file, overwritten(0.3, 0.6), overwritten(0.7, 0.9), overwritten(0.5, 0.99), bases_file)[n]
        yield Candidate("another file's weights", n, damage=damaged)
    yield Candidate("better", 5, noisy(0.01))


def planted(candidate: Candidate, good: Tensors) -> Recipe:
    """The repository's recipe that makes this candidate."""

    def train(context: StageContext) -> TrainSummary:
        outputs, config = context.outputs, context.run.settings.training
        start = context.folder / "start"
        parts = trainer_parts(context)
        asked, examples = held_out_questions(context), context.opened.examples(outputs, "train")
        # one step of the product's training gives the folder its form
        one_step = config.model_copy(update={"max_steps": 1, "eval_steps": 1})
        first = FineTuneTrainer(one_step, **parts | {"folder": start}).train(asked, asked)
        changed = candidate.change(good, np.random.default_rng(candidate.seed))
        assert set(changed) == set(load_file(first.folder / WEIGHTS)), "the layers are others"
        save_file(changed, first.folder / WEIGHTS)
        save_file(changed, first.folder / INITIAL)
        result = first
        if candidate.taught is not None:
            lesson = candidate.taught(asked, examples, random.Random(candidate.seed))
            config = config.model_copy(update={"max_steps": candidate.steps, "eval_steps": candidate.steps})
            result = FineTuneTrainer(config, **parts, adapter=first.folder).train(lesson, lesson)
        else:
            for file in first.folder.iterdir():
                if file.is_file():
                    file.replace(context.folder / file.name)
        return TrainSummary.model_validate(
            {key: value for key, value in dataclasses.asdict(result).items() if key != "folder"}
        )

    def export(context: StageContext) -> Summary:
        made = EXPORT.build(context)
        if candidate.damage is not None:
            candidate.damage(context.folder / "model.f16.gguf", context)
        return made

    changed = {
        "train": dataclasses.replace(TRAIN, build=train, needs=(*TRAIN.needs, "index"), version=1_000),
        "export": dataclasses.replace(EXPORT, build=export, version=1_000),
    }
    stages = tuple(changed.get(stage.name, stage) for stage in REPOSITORY.stages)
    return dataclasses.replace(REPOSITORY, stages=stages)


# -- through the cycle ------------------------------------------------------------------------------------------------------


class World:
    """A repository, a base and a home in which one candidate after the other comes."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.home, self.repo, base = folder / "home", folder / "repo", make_tiny(folder / "base", hidden=128, inner=256)
        about = base / "config.json"
        about.write_text(json.dumps(json.loads(about.read_text()) | {"max_position_embeddings": 4096}))
        stdlib_copy(self.repo, tuple(path.name for path in python_files(45)[15:]))
        self.settings = settings_of(base)
        self.workspace = Workspace.open(self.home)
        # what is asked does not depend on the base, which is another one as soon as it is taught
        scratch = Workspace.open(folder / "scratch")
        asked = new_run(self.repo, load_settings(("flag", self.settings)).settings, scratch)
        teach(base, lessons(Runner(asked, scratch)), seed)
        self.good = take_out(base, seed)

    def cycle(self, candidate: Candidate, number: int) -> CycleRecord:
        """A cycle whose training brings this candidate; the seed of the training makes each a run of its own."""
        settings = self.settings | {"training.seed": number + 1}
        project = {"repository": self.repo, "home": self.home, "name": "planted", "settings": settings}
        record = RepoGuardian(project, recipe=planted(candidate, self.good)).run_cycle(candidate.kind)
        assert record is not None
        return record

    def active(self) -> str | None:
        with Registry(self.home / "registry.db") as registry:
            found = registry.active("planted")
        return found.version if found else None

    def checks(self, run_id: str) -> dict[str, str]:
        """What the gate measured, where it came so far."""
        run = read_run(self.workspace.runs_dir / run_id)
        assert run is not None
        try:
            report = (
                Runner(run, self.workspace, recipe=REPOSITORY_AS_PLANTED).outputs().summary("report", ReportSummary)
            )
        except Exception:  # noqa: BLE001 - it ended before: the record says where
            return {}
        return {check.name: f"{check.passed}: {check.text}" for check in report.checks}

    def answers(self) -> list[bytes]:
        """What the active version says to some questions: drawn with a seed, so that two good versions say different things."""
        asked = ["What does `copy` do?", "Which parameters does `BZ2File.peek` take?", "Where is `bisect_left`?"]
        runtime = load_settings(("flag", self.settings)).settings.runtime
        with ServedModel.open("planted", self.workspace, runtime) as model:
            chats = [model.chat_for(question, (), model.documents_for(question)) for question in asked]
            name, drawn = model.deployment.model, {"max_tokens": 64, "temperature": 1.5, "seed": 1}
            return ["".join(model.runtime.chat(name, chat, **drawn)).encode() for chat in chats]

    def rolled_back(self) -> dict[str, Any]:
        """Deploy another better one, go back, and compare the answers."""
        before, said = self.active(), self.answers()
        other = self.cycle(Candidate("better", 99, noisy(0.02)), 900)
        between, said_between = self.active(), self.answers()
        actions.rollback("planted", load_settings(("flag", self.settings)).settings.runtime, self.workspace)
        return {
            "deployed": other.state == "deployed" and between == other.run_id != before,
            "answers_differed_between": said != said_between,
            "same_version_after": self.active() == before,
            "same_bytes_after": self.answers() == said,
            "n_answers": len(said),
        }


REPOSITORY_AS_PLANTED = planted(Candidate("better", 0), {})


def main() -> int:
    """Plant, look, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=int, default=1, help="only every so many")
    parser.add_argument("--offset", type=int, default=0, help="from which on")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    everything = list(enumerate(candidates()))
    taken = everything[chosen.offset :: chosen.share]
    if not taken[0][1].is_better:  # the first has to be deployed for the others to be compared with it
        taken.insert(0, everything[0])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="planted-") as name:
        world = World(Path(name), chosen.seed)
        for number, candidate in taken:
            began, before = time.monotonic(), world.active()
            record = world.cycle(candidate, number)
            row = {
                "kind": candidate.kind,
                "seed": candidate.seed,
                "state": record.state,
                "told": record.text,
                "task": record.tasks[-1].name,
                "deployed": world.active() != before,
                "gate": world.checks(record.run_id),
                "seconds": round(time.monotonic() - began, 1),
            }
            rows.append(row)
            print(json.dumps(row), file=sys.stderr, flush=True)
        rollback = world.rolled_back()
    sound = all(row["deployed"] == (row["kind"] == "better") for row in rows)
    sound = sound and all(rollback.values())
    print(json.dumps({"sound": sound, "rollback": rollback, "candidates": rows}, indent=1))
    return int(not sound)


if __name__ == "__main__":
    sys.exit(main())
