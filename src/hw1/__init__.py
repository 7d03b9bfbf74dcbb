"""hw1: how neural networks optimise and why they generalise.

Importing the package stays cheap: nothing here imports torch. It only tells glibc's malloc to keep large blocks and
libgomp's threads to spin briefly, which must happen before torch is loaded.
"""

from hw1._before_torch import keep_large_blocks, spin_briefly

__version__ = "0.1.0"

keep_large_blocks()
spin_briefly()
