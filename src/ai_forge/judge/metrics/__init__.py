"""The named metrics, one a file; `judge.evaluator` exports the public ones and runs them as a command (`command`).

| file | says |
| --- | --- |
| `codebleu`, `data_flow` | how like a reference a code is |
| `perplexity` | how surprised a model is by text |
| `hallucination`, `inventions` | what answers speak of that exists nowhere, by `mentions` and `known_names` |
| `reconstruction` | whether a model writes a block of the repository again |
| `answers` | whether the code in answers compiles, and whether they refuse |
| `speed` | how fast a deployed model answers |

A metric is a function from what is measured to a number or a frozen value; what could not be measured is None. `models` opens
what a metric is asked about by its name or path.
"""
