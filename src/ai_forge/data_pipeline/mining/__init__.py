"""One file to code blocks: parsed into whole units, with their documentation, cut where they are long, filtered."""
