"""A name to a base model that trains: where it lies, and what it is turned into."""
