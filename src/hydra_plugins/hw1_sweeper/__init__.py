"""Hydra plugin: the sweeper that resumes, reuses and concludes sweeps."""
