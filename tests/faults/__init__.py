"""A campaign of injected faults: what is done to a command and to its files, and whether anything is lost by it.

`python -m tests.faults --faults 500 --seed 0`; docs/faults.md says what it found.
"""
