"""Ink: arrays and DataFrames -> Axes, in one style. Computes nothing and knows no torch."""
