"""An agent's handbook to pairs that bake its rules into weights: Alpaca pairs, preference pairs, compliance probes.

    sections, documents   what a rule, workflow, log or skill says, verbatim; a document of several sections gets an
                          overview (its opening and its headings), so that no text is told twice
    scenarios, steps      a situation → the one rule that it needs; a step → the next one
    corrections           a mistake → the rule; and, as preference pair, the rule over the mistake
    probes                of each rule that a machine can check: prompts that no pair has, and the check

No model writes here. Every output is the handbook's own words, so nothing is invented; questions come from patterns,
so a rule that fits none has a section pair and no scenario. A rule's pairs lie on one side of the split: sections and
corrections that say nearly the same (Jaccard of words ≥ 0.6) are one rule.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ai_forge.data_pipeline.handbook.agent_folder import AgentFolder, read_agent_folder
from ai_forge.data_pipeline.handbook.contradictions import Contradiction, contradictions_in
from ai_forge.data_pipeline.handbook.pairs import PairMaker
from ai_forge.data_pipeline.schemas.code_blocks import content_id
from ai_forge.data_pipeline.schemas.instructions import HandbookPair
from ai_forge.data_pipeline.schemas.preference_pairs import PreferencePair
from ai_forge.data_pipeline.schemas.probes import ComplianceProbe

__all__ = [
    "COMPANIONS",
    "FINE_TUNING_FILE",
    "HELD_OUT_FILE",
    "PREFERENCES_FILE",
    "PROBES_FILE",
    "Handbook",
    "handbook_of",
    "read_handbook",
]

FINE_TUNING_FILE, HELD_OUT_FILE = "fine-tuning-file.json", "fine-tuning-held-out.json"
PREFERENCES_FILE, PROBES_FILE = "fine-tuning-preferences.jsonl", "fine-tuning-probes.jsonl"
COMPANIONS = (FINE_TUNING_FILE, HELD_OUT_FILE, PREFERENCES_FILE, PROBES_FILE)
"""What `ai-forge handbook` writes into the agent folder."""
_SAME_RULE = 0.6
_MIN_WORDS = 3


@dataclass(frozen=True)
class Handbook:
    """All pairs, preferences and probes of a handbook, and which rules are held out."""

    folder: AgentFolder
    pairs: tuple[HandbookPair, ...]
    preferences: tuple[PreferencePair, ...]
    probes: tuple[ComplianceProbe, ...]
    rejected: Counter[str]
    held_out_rules: frozenset[str]
    contradictions: tuple[Contradiction, ...] = ()

    @cached_property
    def train_pairs(self) -> tuple[HandbookPair, ...]:
        """What is trained on."""
        return tuple(pair for pair in self.pairs if pair.rule_id not in self.held_out_rules)

    @cached_property
    def held_out_pairs(self) -> tuple[HandbookPair, ...]:
        """What only the judge sees."""
        return tuple(pair for pair in self.pairs if pair.rule_id in self.held_out_rules)

    @cached_property
    def train_preferences(self) -> tuple[PreferencePair, ...]:
        """The preference pairs of the rules that are trained on."""
        return tuple(pair for pair in self.preferences if pair.origin.rule_id not in self.held_out_rules)

    def summary(self) -> dict[str, object]:
        """Counts, for a report."""
        return {
            "files": len(self.folder.files),
            "rules": len({pair.rule_id for pair in self.pairs}),
            "pairs": len(self.pairs),
            "by_kind": dict(Counter(pair.kind for pair in self.pairs).most_common()),
            "by_role": dict(Counter(file.role for file in self.folder.files).most_common()),
            "train": len(self.train_pairs),
            "held_out": len(self.held_out_pairs),
            "held_out_rules": len(self.held_out_rules),
            "preferences": len(self.preferences),
            "probes": len(self.probes),
            "contradictions": [str(contradiction) for contradiction in self.contradictions],
            "probes_by_kind": dict(Counter(probe.check.kind for probe in self.probes).most_common()),
            "rejected": dict(self.rejected.most_common()),
            "skipped": dict(self.folder.skipped.most_common()),
            "repaired": dict(Counter(repair for file in self.folder.files for repair in file.repairs).most_common()),
        }


def read_handbook(path: Path, *, hold_out: float = 0.1, seed: int = 0) -> Handbook:
    """The handbook at or below `path`; see `handbook_of`. Raises InputError where there is none to read."""
    return handbook_of(read_agent_folder(path), hold_out=hold_out, seed=seed)


def handbook_of(folder: AgentFolder, *, hold_out: float = 0.1, seed: int = 0) -> Handbook:
    """Pairs, preferences and probes of a folder. About `hold_out` (0–1) of the pairs are held out, by whole rules."""
    maker = PairMaker()
    for file in folder.files:
        maker.add(file)
    same = _same_rules(maker.statements)
    # Only now: what says the same as a rule may stand in a later file.
    pairs = tuple(pair.model_copy(update={"rule_id": same[pair.rule_id]}) for pair in maker.pairs)
    preferences = tuple(
        pair.model_copy(update={"origin": pair.origin.model_copy(update={"rule_id": same[pair.origin.rule_id or ""]})})
        for pair in maker.preferences
    )
    probes = tuple(probe.model_copy(update={"rule_id": same[probe.rule_id]}) for probe in maker.probes())
    checked = {probe.rule_id for probe in probes}
    held_out = _held_out(Counter(pair.rule_id for pair in pairs), checked, hold_out, seed)
    return Handbook(folder, pairs, preferences, probes, maker.rejected, held_out, contradictions_in(maker.directives))


def _held_out(sizes: Counter[str], checked: set[str], share: float, seed: int) -> frozenset[str]:
    """Rules without a probe that together have about the share of all pairs; one that has more than is left is passed over."""
    # Rules with a probe are always trained on: their probes measure them. In the order of a hash, so that the
    # place of a rule in the handbook decides nothing.
    left = round(share * sizes.total())
    chosen: set[str] = set()
    for rule in sorted(sizes.keys() - checked, key=lambda rule: content_id(rule, str(seed))):
        if sizes[rule] <= left:
            chosen.add(rule)
            left -= sizes[rule]
    return frozenset(chosen)


def _same_rules(statements: dict[str, list[set[str]]]) -> dict[str, str]:
    """Each rule's id to the id of the first rule that says nearly the same."""
    same = {rule: rule for rule in statements}

    def root(rule: str) -> str:
        while same[rule] != rule:
            rule = same[rule]
        return rule

    said = [(rule, words) for rule, all_words in statements.items() for words in all_words if len(words) >= _MIN_WORDS]
    for index, (rule, words) in enumerate(said):
        for other, others in said[index + 1 :]:
            if rule != other and len(words & others) >= _SAME_RULE * len(words | others):
                same[root(other)] = root(rule)
    return {rule: root(rule) for rule in same}
