"""Objects that a manager keeps for several processes."""

from multiprocessing import Manager, Process


def change(d, l):
    d[1] = "1"
    d["2"] = 2
    d[0.25] = None
    l.reverse()


if __name__ == "__main__":
    with Manager() as manager:
        d, l = manager.dict(), manager.list(range(10))
        p = Process(target=change, args=(d, l))
        p.start()
        p.join()
        print(sorted(map(str, d)))
        print(list(l))
