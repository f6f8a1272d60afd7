"""A condition: stage two runs when stage one is done."""

import multiprocessing


def stage_1(cond, done):
    with cond:
        print("stage 1 done", flush=True)
        done.value = 1
        cond.notify_all()


def stage_2(cond, done, lines):
    with cond:
        cond.wait_for(lambda: done.value)
        lines.put(f"{multiprocessing.current_process().name} runs")


if __name__ == "__main__":
    condition, done, lines = multiprocessing.Condition(), multiprocessing.Value("b", 0), multiprocessing.Queue()
    s2_clients = [
        multiprocessing.Process(name=f"stage_2[{i}]", target=stage_2, args=(condition, done, lines)) for i in range(2)
    ]
    for c in s2_clients:
        c.start()
    s1 = multiprocessing.Process(name="s1", target=stage_1, args=(condition, done))
    s1.start()
    s1.join()
    for c in s2_clients:
        c.join()
    print(*sorted(lines.get() for _ in s2_clients), sep="\n")
