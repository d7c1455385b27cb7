"""Who calls, tests, inherits and imports whom, across the blocks of a repository."""
