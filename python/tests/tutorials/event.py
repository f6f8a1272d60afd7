"""One process waits for an event for ever, another one for a while."""

import multiprocessing


def wait_for_event(e):
    e.wait()
    print("wait_for_event: e.is_set()->", e.is_set(), flush=True)


def wait_for_event_timeout(e, t):
    e.wait(t)
    print("wait_for_event_timeout: e.is_set()->", e.is_set(), flush=True)


if __name__ == "__main__":
    e = multiprocessing.Event()
    w1 = multiprocessing.Process(name="block", target=wait_for_event, args=(e,))
    w1.start()
    w2 = multiprocessing.Process(name="nonblock", target=wait_for_event_timeout, args=(e, 0.05))
    w2.start()
    w2.join()
    e.set()
    w1.join()
    print("main: event is set")
