"""`train.py` as on another machine: its processes are none that could be seen from here."""

import socket
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

if __name__ == "__main__":
    from hw1 import lease_file

    socket.gethostname = lambda: "node2"
    lease_file._space = lambda: "the boot of node2"
    lease_file._self.cache_clear()
    sys.path.insert(0, str(ROOT))
    import train

    train.main()
