"""Processes by subclass: what is to be done is in run()."""

from multiprocessing import Process, Queue, current_process


class Worker(Process):
    def __init__(self, number, results):
        super().__init__()
        self.number = number
        self.results = results
        self.name = f"worker {number}"

    def run(self):
        self.results.put((self.number, current_process().name, self.number**2))


if __name__ == "__main__":
    results = Queue()
    workers = [Worker(number, results) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for result in sorted(results.get() for _ in workers):
        print(*result)
