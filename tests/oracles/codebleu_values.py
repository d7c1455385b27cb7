"""What the package `codebleu` says of pairs of texts: JSON on stdin, JSON on stdout; `run_codebleu.py` puts it on the path.

Its data flow hangs on the order of hash sets of names, so it says something else in the next process. With `--ordered`
these sets keep the order in which names were found; nothing else of it is touched.
"""

import json
import logging
import sys

from codebleu import calc_codebleu, dataflow_match
from codebleu.parser import DFG

logging.disable()


class OrderedSet(dict):
    def __init__(self, values=()):
        super().__init__(dict.fromkeys(values))

    def add(self, value):
        self[value] = None


if "--ordered" in sys.argv:
    dataflow_match.set = DFG.set = OrderedSet
given = json.load(sys.stdin)
values = [calc_codebleu([reference], [prediction], given["language"]) for prediction, reference in given["pairs"]]
whole = calc_codebleu([r for _, r in given["pairs"]], [p for p, _ in given["pairs"]], given["language"])
json.dump({"pairs": values, "whole": whole}, sys.stdout)
