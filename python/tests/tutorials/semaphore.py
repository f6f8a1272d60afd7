"""A semaphore lets three of ten processes into a pool at a time."""

import multiprocessing


class ActivePool:
    def __init__(self):
        self.active = multiprocessing.Value("i", 0)
        self.most = multiprocessing.Value("i", 0)

    def make_active(self):
        with self.active.get_lock():
            self.active.value += 1
            self.most.value = max(self.most.value, self.active.value)

    def make_inactive(self):
        with self.active.get_lock():
            self.active.value -= 1


def worker(s, pool):
    with s:
        pool.make_active()
        pool.make_inactive()


if __name__ == "__main__":
    pool = ActivePool()
    s = multiprocessing.Semaphore(3)
    jobs = [multiprocessing.Process(target=worker, name=str(i), args=(s, pool)) for i in range(10)]
    for j in jobs:
        j.start()
    for j in jobs:
        j.join()
    print(pool.active.value, 1 <= pool.most.value <= 3, s.get_value())
