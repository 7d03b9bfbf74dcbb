"""Ink: arrays and DataFrames -> Axes, in one style. Computes means and ranges over seeds at most; knows no torch."""
