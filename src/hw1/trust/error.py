"""What a stranger's results are refused with."""

from hw1.settings import ConfigError


class TrustError(ConfigError):
    """Something that somebody else's results ask for and that is not done for a stranger; nothing of it was run.

    The message is one line a problem: the key, what was got, what is expected, and the remedy.
    """
