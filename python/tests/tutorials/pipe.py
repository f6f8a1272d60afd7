"""Two processes that talk to each other over a pipe."""

from multiprocessing import Pipe, Process


def child(conn):
    conn.send([42, None, "hello"])
    print(conn.recv())
    conn.close()


if __name__ == "__main__":
    parent_conn, child_conn = Pipe()
    p = Process(target=child, args=(child_conn,))
    p.start()
    child_conn.close()
    print(parent_conn.recv(), flush=True)
    parent_conn.send("and goodbye")
    p.join()
    try:
        parent_conn.recv()
    except EOFError:
        print("closed")
