"""The empirical risk: any module's loss as a function of its parameters theta. Knows neither Lightning nor Hydra."""
