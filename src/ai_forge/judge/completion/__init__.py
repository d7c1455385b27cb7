"""Next-commit completion: code that the newest commits wrote is taken away again, and a model writes it from what stands around.

    history   the newest commits, the files they changed, the repository as it stood before the first of them
    gaps      lines, blocks, arguments and bodies that a commit wrote, cut at syntax nodes
    measure   base and tuned model on the same gaps, with and without retrieved context: what they write, and nats of the truth
    summary   figures with paired intervals over files

What a model is shown stands around the gap in the file, or stood in the repository before the first of those commits. Files
that the tuned model was trained on are left out.
"""
