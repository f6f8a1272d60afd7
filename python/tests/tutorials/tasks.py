"""Workers that take tasks, which are objects, from a joinable queue."""

import multiprocessing


class Consumer(multiprocessing.Process):
    def __init__(self, task_queue, result_queue):
        multiprocessing.Process.__init__(self)
        self.task_queue = task_queue
        self.result_queue = result_queue

    def run(self):
        while True:
            next_task = self.task_queue.get()
            if next_task is None:
                self.task_queue.task_done()
                break
            answer = next_task()
            self.task_queue.task_done()
            self.result_queue.put(answer)


class Task:
    def __init__(self, a, b):
        self.a = a
        self.b = b

    def __call__(self):
        return "{self.a} * {self.b} = {product}".format(self=self, product=self.a * self.b)


if __name__ == "__main__":
    tasks = multiprocessing.JoinableQueue()
    results = multiprocessing.Queue()

    consumers = [Consumer(tasks, results) for i in range(2)]
    for w in consumers:
        w.start()

    for i in range(10):
        tasks.put(Task(i, i))
    for i in range(2):
        tasks.put(None)
    tasks.join()

    for line in sorted(results.get() for i in range(10)):
        print(line)
