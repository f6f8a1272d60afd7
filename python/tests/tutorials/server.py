"""A TCP server with a process for each connection, and clients that are processes too."""

import socket
from multiprocessing import Process, Queue


def serve(connection, address):
    with connection:
        connection.sendall(connection.recv(1024).upper())


def client(port, text, answers):
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(text.encode())
        answers.put(connection.recv(1024).decode())


if __name__ == "__main__":
    answers = Queue()
    texts = ["hello", "and", "goodbye"]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        processes = [Process(target=client, args=(port, text, answers)) for text in texts]
        for process in processes:
            process.start()
        for _ in texts:
            connection, address = listener.accept()
            process = Process(target=serve, args=(connection, address), daemon=True)
            process.start()
            connection.close()
            processes.append(process)
    print(*sorted(answers.get() for _ in texts))
    for process in processes:
        process.join()
        print(process.exitcode)
