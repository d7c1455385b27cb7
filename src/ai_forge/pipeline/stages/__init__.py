"""The stages, one idea a file: what each is keyed by, what it makes, what it says of it."""
