"""A producer and a consumer with a queue between them, which ends with a None."""

from multiprocessing import Process, Queue


def producer(queue):
    for number in range(5):
        queue.put({"item": number})
    queue.put(None)


def consumer(queue, done):
    total = 0
    while (item := queue.get()) is not None:
        total += item["item"]
    done.put(total)


if __name__ == "__main__":
    queue, done = Queue(), Queue()
    processes = [Process(target=producer, args=(queue,)), Process(target=consumer, args=(queue, done))]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print("total", done.get(), done.empty())
