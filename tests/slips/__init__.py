"""A table of slips: what users type, and what hw1 must say of it: one line that names the key and the remedy, code 1.

`python -m tests.slips` meets all of them and prints the figures; docs/slips.md has them.
"""
