"""A pool of workers."""

import multiprocessing


def calculate(value):
    return value * 10


def start_process():
    multiprocessing.current_process().prepared = True


if __name__ == "__main__":
    pool = multiprocessing.Pool(processes=2, initializer=start_process)
    print(pool.map(calculate, range(5)))
    print(sorted(pool.imap_unordered(calculate, range(5))), pool.apply(calculate, (7,)))
    pool.close()
    pool.join()
