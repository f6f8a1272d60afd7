"""A counter in shared memory under a lock: nothing is lost."""

from multiprocessing import Array, Lock, Process, Value


def deposit(balance, history, lock, number):
    for _ in range(100):
        with lock:
            balance.value += 1
    for _ in range(100):
        with balance.get_lock():
            balance.value += 1
    history[number] += balance.value > 0


if __name__ == "__main__":
    balance, history = Value("i", 0), Array("i", 4)
    lock = balance.get_lock()
    processes = [Process(target=deposit, args=(balance, history, lock, number)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print(balance.value, history[:])
