#!/usr/bin/env python3
"""storm.py [--connections N] FORKYARD: connections to `forkyard serve` while random processes of it are killed.

Some clients at a time connect, send a line and want it back in capitals. Every 50 ms one process below the server,
picked at random (a connection's, a spare one or the zygote), gets SIGKILL. In the end

- every connection was served, or broke off because its process was killed: no wrong answer, and none that hung;
- the server's own books balance, and agree: accepted = served + lost, and no more lost than the killed ones had;
- the server has no zombie, no process and no file descriptor more than at the start, and still serves;
- SIGTERM ends it, and nothing of it is left; started again and killed with SIGKILL, all below it is gone within 1 s,
  also when that happens while it starts.
"""

import argparse
import collections
import errno
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request

from procfs import children, descendants

CLIENT_TIMEOUT = 20.0
SETTLE_TIMEOUT = 10.0
KILL_INTERVAL = 0.05


def fail(what):
    print(f"storm: FAILED: {what}", flush=True)
    sys.exit(1)


def status_field(pid, field):
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith(field + ":"):
                    return line.split()[1]
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(condition, timeout):
    """Waits until condition() is true; returns whether it became so."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


class Server:
    """A running `forkyard serve`. `launcher` is a command that starts it, as `unshare --pid --fork` would."""

    def __init__(self, binary, extra, launcher):
        self.status = f"127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [*launcher, binary, "serve", "--bind", "127.0.0.1:0", "--print-port", "--status", self.status, *extra],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self.pid = self.process.pid
        if not select.select([self.process.stdout], [], [], 30)[0]:
            fail("the server printed no port within 30 s")
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            fail(f"the server printed {line!r} and not its port")
        self.address = ("127.0.0.1", int(line))
        if launcher:
            self.pid = children(self.pid)[0]

    def processes(self):
        return descendants(self.pid)

    def books(self):
        """What the server has counted; None while its status page, which may be hit too, is not there."""
        try:
            with urllib.request.urlopen(f"http://{self.status}/status.json", timeout=CLIENT_TIMEOUT) as answer:
                return json.load(answer)
        except OSError:
            return None

    def zombies(self):
        return [pid for pid in self.processes() if status_field(pid, "State") == "Z"]

    def descriptors(self):
        """What the server's descriptors are open on."""
        found = []
        for number in os.listdir(f"/proc/{self.pid}/fd"):
            try:
                link = os.readlink(f"/proc/{self.pid}/fd/{number}")
                found.append(re.sub(r":\[\d+\]", "", link))
            except FileNotFoundError:
                pass
        return sorted(found)


def talk(address, number):
    """One connection: "served", "lost" (it broke off), or what else happened."""
    line = b"hello %d\n" % number
    try:
        with socket.create_connection(address, timeout=CLIENT_TIMEOUT) as connection:
            connection.sendall(line)
            connection.shutdown(socket.SHUT_WR)
            answer = b""
            while block := connection.recv(4096):
                answer += block
    except (ConnectionResetError, BrokenPipeError):
        return "lost"
    except TimeoutError:
        return f"connection {number} hung"
    except OSError as error:
        if error.errno == errno.ENOTCONN:  # shutdown after the other side has reset
            return "lost"
        return f"connection {number}: {error}"
    if answer == line.upper():
        return "served"
    return "lost" if line.upper().startswith(answer) else f"connection {number}: wrong answer {answer!r}"


class Load:
    """`clients` threads that make `total` connections between them."""

    def __init__(self, address, total, clients):
        self.lock = threading.Lock()
        self.left = total
        self.counts = {"served": 0, "lost": 0}
        self.wrong = []
        self.threads = [threading.Thread(target=self.client, args=(address,)) for _ in range(clients)]

    def client(self, address):
        while True:
            with self.lock:
                if self.left == 0 or len(self.wrong) > 10:
                    return
                self.left -= 1
                number = self.left
            outcome = talk(address, number)
            with self.lock:
                if outcome in self.counts:
                    self.counts[outcome] += 1
                else:
                    self.wrong.append(outcome)

    def running(self):
        return any(thread.is_alive() for thread in self.threads)


def kill_one(server, chooser):
    """SIGKILLs one process below the server; true if it still lived."""
    candidates = server.processes()
    if not candidates:
        return False
    victim = chooser.choice(candidates)
    try:
        pidfd = os.pidfd_open(victim)
    except ProcessLookupError:
        return False
    try:
        # The number may have been given to a stranger before the pidfd was open.
        if victim not in server.processes() or status_field(victim, "State") == "Z":
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        return True
    except ProcessLookupError:
        return False
    finally:
        os.close(pidfd)


def storm(binary, arguments):
    server = Server(binary, arguments.server, arguments.launcher.split())
    if talk(server.address, 0) != "served":
        fail("the first connection, before any kill, was not served")
    most_processes, most_descriptors = settle(server)

    chooser = random.Random(arguments.seed)
    load = Load(server.address, arguments.connections, arguments.clients)
    kills = 0
    start = time.monotonic()
    for thread in load.threads:
        thread.start()
    while load.running():
        time.sleep(KILL_INTERVAL)
        # Many a victim ends by itself before the signal gets there: then another one.
        kills += any(kill_one(server, chooser) for _ in range(50))
        if server.process.poll() is not None:
            fail(f"the server itself ended: {server.process.returncode}")
    seconds = time.monotonic() - start

    served, lost = load.counts["served"], load.counts["lost"]
    print(
        f"storm: {arguments.connections} connections, {served} served, {lost} lost to {kills} kills, "
        f"{arguments.connections / seconds:.0f} per second (seed {arguments.seed})",
        flush=True,
    )
    if load.wrong:
        fail("; ".join(load.wrong))
    if served + lost != arguments.connections:
        fail(f"{served} + {lost} connections accounted for, of {arguments.connections}")
    if talk(server.address, 0) != "served":
        fail("a connection after the storm was not served")
    check_books(server, arguments, lost, kills)
    wait_for(lambda: len(server.processes()) <= most_processes, SETTLE_TIMEOUT)
    # One more may be the number that is held free for the next child's pidfd: at rest it is there or not.
    wait_for(lambda: len(server.descriptors()) <= len(most_descriptors) + 1, SETTLE_TIMEOUT)
    if not wait_for(lambda: not server.zombies(), SETTLE_TIMEOUT):
        fail(f"zombies: {server.zombies()}")
    if len(server.processes()) > most_processes:
        fail(f"{len(server.processes())} processes, {most_processes} at the start")
    if len(server.descriptors()) > len(most_descriptors) + 1:
        more = collections.Counter(server.descriptors()) - collections.Counter(most_descriptors)
        fail(f"descriptors that were not open at the start: {dict(more)}")
    stop(server)


def check_books(server, arguments, lost, kills):
    """The server's counts agree with the clients' and with each other."""
    books = None
    accepted = arguments.connections + 2  # and those before and after the storm

    def at_rest():
        nonlocal books
        books = server.books()
        return books and books["active"] == books["pending"] == books["parked"] == 0

    if not wait_for(at_rest, SETTLE_TIMEOUT):
        fail(f"the server does not come to rest: {books}")
    # A process may be killed after its last answer and before its end: lost for the server, served for the client.
    if books["accepted"] != accepted or books["served"] + books["lost"] != accepted:
        fail(f"of {accepted} connections the server counts {books['accepted']}: {books['served']} + {books['lost']}")
    # A prefork worker has several connections, any other process one.
    at_stake = kills * (arguments.clients if books["mode"] == "prefork" else 1)
    if not lost <= books["lost"] <= at_stake:
        fail(f"{lost} connections broke off, {books['lost']} did so for the server, and {kills} processes were killed")


def settle(server):
    """The numbers of processes and descriptors at rest: once they stay the same for half a second."""
    seen = None
    deadline = time.monotonic() + SETTLE_TIMEOUT
    while time.monotonic() < deadline:
        now = (len(server.processes()), server.descriptors())
        if now == seen:
            return now
        seen = now
        time.sleep(0.5)
    fail("the server does not come to rest")


def stop(server):
    below = server.processes()
    os.kill(server.pid, signal.SIGTERM)
    try:
        code = server.process.wait(30)
    except subprocess.TimeoutExpired:
        fail("SIGTERM did not end the server within 30 s")
    if code not in (0, -signal.SIGTERM, 128 + signal.SIGTERM):
        fail(f"after SIGTERM the server ended with {code}")
    if not wait_for(lambda: not alive(below), 1.0):
        fail(f"left after SIGTERM: {alive(below)}")


def alive(pids):
    return [pid for pid in pids if status_field(pid, "State") not in (None, "Z", "X")]


def killed_server(binary, arguments):
    server = Server(binary, arguments.server, arguments.launcher.split())
    connections = [socket.create_connection(server.address, timeout=CLIENT_TIMEOUT) for _ in range(arguments.clients)]
    for connection in connections:
        connection.sendall(b"x\n")
        if connection.makefile("rb").readline() != b"X\n":
            fail("a connection of the second server was not served")
    below = server.processes()
    os.kill(server.pid, signal.SIGKILL)
    server.process.wait()
    if not wait_for(lambda: not alive(below), 1.0):
        fail(f"1 s after SIGKILL of the server {len(alive(below))} of its {len(below)} processes live on")
    print(f"storm: SIGKILL of the server took its {len(below)} processes with it within 1 s")


def killed_at_the_start(binary):
    """Kills servers while they start; what would be left of them, ci/leaks.py finds."""
    for number in range(40):
        starting = subprocess.Popen([binary, "serve", "--bind", "127.0.0.1:0"], stderr=subprocess.DEVNULL)
        # Not to wait for anything: each is killed a little later in its start than the one before.
        time.sleep(0.0003 * number)
        starting.kill()
        starting.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=100_000)
    parser.add_argument("--clients", type=int, default=16, help="connections at a time")
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 32))
    parser.add_argument("--server", action="append", default=[], help="one more argument for forkyard serve")
    parser.add_argument("--launcher", default="", help="command in front of forkyard serve, such as unshare")
    parser.add_argument("binary", metavar="FORKYARD")
    arguments = parser.parse_args()
    storm(arguments.binary, arguments)
    killed_server(arguments.binary, arguments)
    killed_at_the_start(arguments.binary)


if __name__ == "__main__":
    main()
