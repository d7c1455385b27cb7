"""`ai-forge`: words to calls, values to text. Nothing else: what a command does is done by the part that it calls.

A result is shown in one way by all commands (`output`): for people on a terminal, as JSON with `--json` or in a pipe. Messages
and bars go to stderr. Modules that take long to load are imported by the commands that need them.
"""
