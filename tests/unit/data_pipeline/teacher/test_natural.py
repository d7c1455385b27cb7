"""What a writer may be believed: questions that a person could ask, answers that cite what they say."""

import pytest

from ai_forge.data_pipeline.schemas import Document
from ai_forge.data_pipeline.teacher.natural import REFUSED, SHELF, WORKED, question_messages, read_questions
from ai_forge.data_pipeline.teacher.natural_checks import problem_of_answer, problem_of_question, problem_of_refusal

LOAD = Document(
    block_id="1",
    name="Cache.load",
    citation="src/cache.py:10-18",
    language="python",
    text="""def load(self, key, *, retries=3):
    \"\"\"Return the stored value. Raises KeyMissing if there is none.\"\"\"
    for _ in range(retries):
        if key in self._rows:
            return self._rows[key]
    raise KeyMissing(key)""",
)
OPEN = Document(
    block_id="2",
    name="open_cache",
    citation="src/cache.py:30-33",
    language="python",
    text="def open_cache(path, timeout=2.5):\n    return Cache(Store(path, timeout))",
)
SHOWN = (LOAD, OPEN)
QUESTION = "What happens when I load a key that is not stored?"
GOOD = (
    "`Cache.load` raises `KeyMissing` when the key is not stored [src/cache.py:10-18]. It looks `retries` times before it gives up, "
    "3 by default [src/cache.py:10-18]."
)


def test_an_answer_that_cites_what_it_says_passes() -> None:
    assert problem_of_answer(QUESTION, GOOD, SHOWN, SHOWN) is None


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("It raises an error.", "length"),
        (GOOD.replace("[src/cache.py:10-18]", ""), "cites_nothing"),
        (GOOD.replace("cache.py:10-18]", "cache.py:10-99]"), "invents_a_citation"),
        (GOOD.replace("[src/cache.py:10-18].", "[src/cache.py:10-18] [cache.py]."), "invents_a_citation"),
        (GOOD.replace("`retries`", "`max_retries`"), "invents_a_name"),
        (GOOD.replace("3 by default", "5 by default"), "invents_a_number"),
        (GOOD.replace("KeyMissing", "Store"), "contradicts_the_code"),
        (GOOD.replace("src/cache.py:10-18", "src/cache.py:30-33"), "contradicts_the_code"),
        (
            "With a key that is not stored, `retries` counts in the loop of load, the range of which is 3 [src/cache.py:30-33].",
            "cites_another_place",
        ),
        ("As the provided documents show, " + GOOD, "speaks_of_documents"),
        (
            "The documents do not contain anything about loading a key that is not stored, sorry [src/cache.py:10-18].",
            "denies_the_answer",
        ),
        (
            "`open_cache` takes a path and a timeout of 2.5 seconds, and gives a `Cache` back to you [src/cache.py:30-33].",
            "beside_the_question",
        ),
        (
            GOOD + " Call it so:\n\n```python\ncache = open_cache(path)\ncache.fetch_all(key)\n```\n",
            "invents_a_name",
        ),
    ],
)
def test_an_answer_that_must_not_be_taught_says_why(answer: str, problem: str) -> None:
    assert problem_of_answer(QUESTION, answer, SHOWN, SHOWN) == problem


def test_code_that_only_calls_what_is_shown_may_stand_in_an_answer() -> None:
    code = "\n\n```python\ncache = open_cache(path)\nvalue = cache.load(key)\nprint(value)\n```\n"
    assert problem_of_answer(QUESTION, GOOD + code, SHOWN, SHOWN) is None


def test_what_the_student_does_not_see_cannot_be_cited() -> None:
    assert problem_of_answer(QUESTION, GOOD, SHOWN, (OPEN,)) == "cites_what_the_student_does_not_see"


def test_a_copy_is_no_answer() -> None:
    text = "The cache keeps rows for as long as the process lives and drops the oldest one first when a new row would not fit into it"
    document = LOAD.model_copy(update={"text": text})
    answer = f"{text} [src/cache.py:10-18]."
    assert problem_of_answer("Which rows does the cache drop first?", answer, [document], [document]) == "copies"


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        ("How do I load a value again when it is missing?", None),
        ("Load how?", "question_length"),
        ("What does this function return for a missing key?", "question_points_at_code"),
        ("Where in the code above are keys looked up?", "question_points_at_code"),
        ("How does `load` use `retries` with `key` and `timeout`?", "question_knows_too_much"),
        ("What does `Cache.fetch` do with a missing key?", "question_invents_a_name"),
        ("In which file is the registry kept?", "question_again"),
    ],
)
def test_a_question_is_one_that_a_person_could_ask(question: str, problem: str | None) -> None:
    assert problem_of_question(question, SHOWN, ["Where is the registry kept?"]) == problem


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("I can't tell: nothing here is about sorting, only about loading a value from a cache.", None),
        ("Nothing shown says how rows are sorted; it is only about `Cache.load` [src/cache.py:10-18].", None),
        ("Rows are sorted by their key, the oldest first, as usual.", "does_not_refuse"),
        ("I do not know, but `Cache.sort_rows` may do what you are looking for here.", "invents_a_name"),
        ("I do not know.", "refusal_length"),
    ],
)
def test_a_refusal_says_so_and_invents_nothing(answer: str, problem: str | None) -> None:
    assert problem_of_refusal("How are the rows sorted?", answer, SHOWN) == problem


def test_questions_are_read_from_a_list() -> None:
    told = 'Sure:\n1. How do I stop it?\n2) Where is it kept ?\n- "Why twice?"\n\nHow do I stop it?\nThat is all.'
    assert read_questions(told) == ["How do I stop it?", "Where is it kept?", "Why twice?"]


def test_the_forms_asked_for_follow_the_seed() -> None:
    asked = [question_messages([LOAD], "cache", 4, seed)[-1]["content"] for seed in ("a", "a", "b")]
    assert asked[0] == asked[1] != asked[2]
    assert "Each question must need all" in question_messages(SHOWN, "cache", 4, "a")[-1]["content"]


def test_the_worked_examples_obey_the_rules_that_answers_are_held_to() -> None:
    """Each is checked as an answer of the writer is, with the documents that it is shown with."""
    for question, answer, shown in WORKED:
        documents = [SHELF[i] for i in shown]
        assert problem_of_answer(question, answer, documents, documents) is None
    question, answer, shown = REFUSED
    assert problem_of_refusal(question, answer, [SHELF[i] for i in shown]) is None
