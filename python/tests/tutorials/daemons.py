"""A daemon ends with the program; another process is waited for."""

import multiprocessing
import sys
import time


def daemon(running):
    print("daemon starts", flush=True)
    running.set()
    time.sleep(600)
    print("daemon ends", flush=True)


def non_daemon():
    print("other process starts")
    print("other process ends")
    sys.stdout.flush()


if __name__ == "__main__":
    running = multiprocessing.Event()
    d = multiprocessing.Process(name="daemon", target=daemon, args=(running,))
    d.daemon = True
    d.start()
    running.wait()
    n = multiprocessing.Process(name="non-daemon", target=non_daemon)
    n.daemon = False
    n.start()
    d.join(0.01)
    print("d.is_alive()", d.is_alive(), flush=True)
