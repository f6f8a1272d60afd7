"""A lock around standard output: no line gets mixed up with another."""

import multiprocessing
import sys


def with_lock(lock, name):
    with lock:
        for word in (name, "has", "the", "lock\n"):
            sys.stdout.write(word if word.endswith("\n") else word + " ")
            sys.stdout.flush()


def without_with(lock, name):
    lock.acquire()
    try:
        sys.stdout.write(name + " has ")
        sys.stdout.flush()
        sys.stdout.write("the lock\n")
        sys.stdout.flush()
    finally:
        lock.release()


if __name__ == "__main__":
    lock = multiprocessing.Lock()
    processes = [
        multiprocessing.Process(target=target, args=(lock, f"{target.__name__} {number}"))
        for target in (with_lock, without_with)
        for number in range(3)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
