"""A folder that a stranger hands over: what may be planted in it, and what every reader makes of it."""
