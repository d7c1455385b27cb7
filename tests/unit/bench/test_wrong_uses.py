"""Every command used wrongly: the part of `bench/wrong_uses.py` that needs no files. A new command is tried by itself."""

from cli_runs import ai_forge
from wrong_uses import all_cases, commands, fault_in, names_value


def test_each_command_refuses_wrong_words_in_one_line_that_names_them() -> None:
    cases = [case for case in all_cases() if case.is_of_words_alone]
    assert {case.command for case in cases} >= {command.name for command in commands()}
    chosen = [case for n, case in enumerate(cases) if case.what == "an unknown flag" or n % 8 == 0]
    found = {}
    for case in chosen:
        fault = fault_in(case, ai_forge(*case.words))
        if fault:
            found[" ".join(case.words)] = fault
    assert found == {}
    assert len(chosen) > 100


def test_a_complaint_names_what_was_given_or_its_beginning() -> None:
    assert names_value("bad_input: 'many' is no number. Next: give one.", "many")
    assert names_value(f"bad_input: {'x' * 80}… (5000 characters) is no file.", "x" * 5000)
    assert not names_value("bad_input: that is no number. Next: give one.", "many")
