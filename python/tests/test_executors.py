"""Clients that take a context, unchanged: executors, joblib, logging's queue handlers."""

import concurrent.futures
import logging
import logging.handlers
import os
import signal
import subprocess
import sys

import pytest


def square(number):
    return number * number


def fails(number):
    raise ValueError(number)


def dies():
    os.kill(os.getpid(), signal.SIGKILL)


def remember(number):
    remember.number = number


def remembered():
    return remember.number


def test_an_executor_takes_the_context(ctx):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx, initializer=remember, initargs=(7,)) as executor:
        assert list(executor.map(square, range(10), chunksize=3)) == [number * number for number in range(10)]
        assert executor.submit(remembered).result() == 7
        with pytest.raises(ValueError, match="3"):
            executor.submit(fails, 3).result()


def test_an_executor_notices_that_a_worker_was_killed(ctx):
    broken = pytest.raises(concurrent.futures.process.BrokenProcessPool)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=ctx) as executor, broken:
        executor.submit(dies).result()


def test_a_pool_goes_on_when_its_workers_are_killed_while_they_wait(ctx):
    with ctx.Pool(2) as pool:
        assert pool.map(square, range(4)) == [0, 1, 4, 9]
        for killed in (1, 2):
            workers = list(pool._pool)[:killed]
            for worker in workers:
                worker.kill()
                worker.join()
            assert pool.map(square, range(4)) == [0, 1, 4, 9]


def logs(queue, number):
    logger = logging.getLogger(f"forkyard.tests.{os.getpid()}")
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(queue))
    logger.setLevel(logging.INFO)
    logger.info("message %d", number)


class Collector(logging.Handler):
    def __init__(self):
        super().__init__()
        self.lines = []

    def emit(self, record):
        self.lines.append((record.processName, record.getMessage()))


def test_logging_by_way_of_a_queue(ctx):
    queue, collector = ctx.Queue(), Collector()
    listener = logging.handlers.QueueListener(queue, collector)
    listener.start()
    processes = [ctx.Process(target=logs, args=(queue, number), name=f"logger {number}") for number in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    listener.stop()
    assert sorted(collector.lines) == [(f"logger {number}", f"message {number}") for number in range(3)]


JOBLIB = """
import sys
from joblib import Parallel, delayed, parallel_config
import forkyard

def square(number):
    return number * number

def both(number):
    return sum(Parallel(n_jobs=2)(delayed(square)(n) for n in range(number)))

if __name__ == "__main__":
    forkyard.set_start_method(sys.argv[1])
    with parallel_config("multiprocessing", n_jobs=2):
        print(Parallel()(delayed(square)(number) for number in range(6)))
        print(Parallel()(delayed(both)(number) for number in range(3)))
"""


def test_joblib_by_processes(program, method):
    pytest.importorskip("joblib", reason="joblib could not be installed")
    done = program(JOBLIB, method)
    assert (done.stdout, done.stderr, done.returncode) == ("[0, 1, 4, 9, 16, 25]\n[0, 0, 1]\n", "", 0)


EXECUTOR_TESTS = """
import unittest
import forkyard
from test.test_concurrent_futures import executor, test_process_pool, util

class Zygote(util.ProcessPoolForkserverMixin):
    ctx = "zygote"

    def get_context(self):
        return forkyard.get_context("zygote")

class ZygoteProcessPoolExecutorTest(Zygote, test_process_pool.ProcessPoolExecutorTest, util.BaseTestCase):
    pass

if __name__ == "__main__":
    unittest.main(verbosity=2)
"""


def test_the_interpreters_own_tests_of_an_executor(program):
    have = "import test.test_concurrent_futures.test_process_pool"
    if subprocess.run([sys.executable, "-c", have], capture_output=True).returncode:
        pytest.skip("this interpreter has no test.test_concurrent_futures package")
    done = program(EXECUTOR_TESTS)
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stderr.count("... ok") > 15
