"""The repository as files: what it holds, its history, dates and licences. Nothing is written, no hook runs."""
