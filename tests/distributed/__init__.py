"""Several processes against one, case by case.

`python -m tests.distributed` trains every case once in one process and once in several, in float64, and prints by how
much parameters and metrics differ; docs/distributed.md says what it found.
"""
