"""Hydra plugin: a project's own conf/ stands before hw1's."""
