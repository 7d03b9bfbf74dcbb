"""A job with a process that serves it, forked from a server, as a DataLoader's may be; says its number, and waits."""

import multiprocessing
import time

from hw1 import preemption


def served(connection):
    preemption.serve()
    connection.send("ready")
    time.sleep(60)


if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    here, there = context.Pipe()
    process = context.Process(target=served, args=(there,))
    process.start()
    here.recv()
    print(process.pid, flush=True)
    time.sleep(60)
