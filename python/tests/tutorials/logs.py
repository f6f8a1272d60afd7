"""Processes that log through one queue."""

import logging
import logging.handlers
import multiprocessing


def worker(queue, number):
    root = logging.getLogger()
    root.addHandler(logging.handlers.QueueHandler(queue))
    root.setLevel(logging.INFO)
    root.info("message %d", number)


class Collector(logging.Handler):
    lines = []

    def emit(self, record):
        self.lines.append(f"{record.processName}: {record.getMessage()}")


if __name__ == "__main__":
    queue = multiprocessing.Queue(-1)
    listener = logging.handlers.QueueListener(queue, Collector())
    listener.start()
    workers = [multiprocessing.Process(target=worker, args=(queue, i), name=f"logger {i}") for i in range(3)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    listener.stop()
    print(*sorted(Collector.lines), sep="\n")
