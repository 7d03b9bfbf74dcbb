"""hw1: how neural networks optimise and why they generalise.

Importing the package stays cheap: nothing here imports torch. It only tells glibc's malloc to keep large
blocks, which must happen before torch allocates its first tensor.
"""

from hw1._malloc import keep_large_blocks

__version__ = "0.1.0"

keep_large_blocks()
