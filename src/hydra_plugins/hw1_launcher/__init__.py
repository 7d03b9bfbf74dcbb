"""Hydra plugin: the launcher that runs a sweep's jobs side by side, as many as the machine has room for."""
