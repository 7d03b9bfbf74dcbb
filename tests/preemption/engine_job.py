"""A job as an engine has it: a training in a process of its own, which can be started again."""

from pathlib import Path

from composed import settings
from hw1.preemption import listening
from hw1.training.fit import fit


class Job:
    """Called, it trains a run in a folder; submitit asks for its `checkpoint` before it starts it again."""

    def __init__(self, words, root):
        self.words, self.root = words, root

    def __call__(self):
        own = settings(*self.words)
        with listening():
            return fit(own, Path(self.root) / f"run-{own.key}")["status"]

    def checkpoint(self, *args):
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)
