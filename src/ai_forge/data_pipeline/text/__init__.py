"""Text without a language: counting and splitting, Markdown, near-duplicates."""
