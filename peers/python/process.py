"""Capitals by one `multiprocessing.Process` (fork) per connection. Prints its port."""

import multiprocessing
import socket


def handle(conn):
    with conn, conn.makefile("rwb") as stream:
        for line in stream:
            stream.write(line.upper())
            stream.flush()


if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    while True:
        conn, _ = listener.accept()
        context.Process(target=handle, args=(conn,)).start()  # start() also reaps the ended ones
        conn.close()
