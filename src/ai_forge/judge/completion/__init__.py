"""Next-commit completion: code that the newest commits wrote is taken away again, and a model writes it from what stands around.

Where the gaps come from is `data_pipeline.gaps`; `measure` puts base and tuned model to the same ones, with and without retrieved
context: what they write, and nats of the truth, with paired intervals over files.

What a model is shown stands around the gap in the file, or stood in the repository before the first of those commits. Files
that the tuned model was trained on are left out.
"""
