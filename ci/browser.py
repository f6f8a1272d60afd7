#!/usr/bin/env python3
"""browser.py [--screenshot FILE] FORKYARD: the status page of `forkyard serve`, looked at in a real browser.

The page has to show every process of the server and each connection, follow what happens without being loaded again,
complain about nothing, and fit a wide and a narrow window. Skipped, with the reason, where there is no chromium.
"""

import argparse
import base64
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

PATIENCE = 20.0


def fail(what):
    raise SystemExit(f"browser: FAILED: {what}")


class Browser:
    """Headless chromium, driven over its debugging pipe: JSON messages that end with a NUL byte."""

    def __init__(self, program):
        self.profile = tempfile.mkdtemp(prefix="fy-browser-")
        to_browser, self.commands = os.pipe()
        self.events, from_browser = os.pipe()
        arguments = [
            program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--window-size=1280,900",
            f"--user-data-dir={self.profile}", "--remote-debugging-pipe", "about:blank",
        ]
        # The browser reads commands from descriptor 3 and writes to 4.
        shell = f'exec 3<&{to_browser} 4>&{from_browser}; exec "$@"'
        self.process = subprocess.Popen(
            ["bash", "-c", shell, "browser", *arguments],
            pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self.buffer = b""
        self.number = 0
        self.session = None
        self.problems = []

    def receive(self):
        while b"\0" not in self.buffer:
            if not select.select([self.events], [], [], PATIENCE)[0]:
                fail(f"the browser said nothing for {PATIENCE} s")
            block = os.read(self.events, 65536)
            if not block:
                fail("the browser ended")
            self.buffer += block
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            answer = self.receive()
            if answer.get("id") == self.number:
                if "error" in answer:
                    fail(f"{method}: {answer['error']}")
                return answer["result"]
            self.notice(answer)

    def notice(self, event):
        """Keeps what the page complained about."""
        parameters = event.get("params", {})
        if event.get("method") == "Runtime.exceptionThrown":
            self.problems.append(parameters["exceptionDetails"].get("exception", {}).get("description", "exception"))
        if event.get("method") == "Log.entryAdded" and parameters["entry"]["level"] == "error":
            self.problems.append(f"{parameters['entry']['text']} {parameters['entry'].get('url', '')}")

    def open(self, url):
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=url)

    def evaluate(self, expression):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            fail(f"{expression}: {result['exceptionDetails']}")
        return result["result"].get("value")

    def close(self):
        self.session = None
        try:
            self.call("Browser.close")
        except (SystemExit, BrokenPipeError):
            pass
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def text(self):
        """All that the page says, also what it says when pointed at."""
        return self.evaluate("document.body ? document.body.innerText + document.body.innerHTML : ''")

    def wait_for(self, what, condition):
        """Waits until condition(text of the page) is true."""
        deadline = time.monotonic() + PATIENCE
        while not condition(text := self.text()):
            if time.monotonic() > deadline:
                fail(f"the page does not show {what}; it says:\n{self.evaluate('document.body.innerText')}")
            time.sleep(0.05)

    def resize(self, width):
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        if self.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"):
            fail(f"the page is wider than a window of {width} pixels")

    def screenshot(self, file):
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        with open(file, "wb") as image:
            image.write(base64.b64decode(data))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    def __init__(self, binary):
        self.status = f"http://127.0.0.1:{free_port()}"
        self.process = subprocess.Popen(
            [binary, "serve", "--bind", "127.0.0.1:0", "--print-port", "--status", self.status.split("//")[1]],
            stdout=subprocess.PIPE,
        )
        line = self.process.stdout.readline()
        if not line.strip().isdigit():
            fail(f"the server printed {line!r} and not its port")
        self.port = int(line)
        self.wait_for("the status page", lambda stats: stats["workers"])

    def stats(self):
        with urllib.request.urlopen(f"{self.status}/status.json", timeout=PATIENCE) as answer:
            return json.load(answer)

    def wait_for(self, what, condition):
        """Waits until condition(statistics) is true, and returns the statistics."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                if condition(stats := self.stats()):
                    return stats
            except OSError:
                stats = None
            if time.monotonic() > deadline:
                fail(f"{what} did not come about: {stats}")
            time.sleep(0.05)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE)


def look(server, browser, screenshot):
    browser.open(server.status)
    browser.wait_for("the server's pid", lambda text: str(server.process.pid) in text)
    if not browser.evaluate("document.title"):
        fail("the page has no title")
    workers = [str(worker["pid"]) for worker in server.stats()["workers"]]
    browser.wait_for("every process", lambda text: all(pid in text for pid in workers))

    # A connection comes: the page shows it, and the process that serves it, by itself.
    client = socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE)
    client.sendall(b"hello\n")
    if client.recv(16) != b"HELLO\n":
        fail("the connection was not served")
    mine = f"127.0.0.1:{client.getsockname()[1]}"
    stats = server.wait_for("the connection", lambda stats: any(c["peer"] == mine for c in stats["connections"]))
    browser.wait_for("the connection", lambda text: mine in text)
    for width in (390, 1280):
        browser.resize(width)
    if screenshot:
        browser.screenshot(screenshot)

    # Its process is killed: both go, and the death is counted.
    victim = next(c["pid"] for c in stats["connections"] if c["peer"] == mine)
    os.kill(victim, signal.SIGKILL)
    server.wait_for("the count of the death", lambda stats: [9, 1] in stats["died"])
    browser.wait_for("that the connection is gone", lambda text: mine not in text)
    client.close()

    if browser.problems:
        fail("the page complained: " + "; ".join(browser.problems))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--screenshot", metavar="FILE", help="keep a picture of the page")
    parser.add_argument("binary", metavar="FORKYARD")
    arguments = parser.parse_args()
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        print("browser: skipped, there is no chromium here")
        return
    server = Server(arguments.binary)
    browser = Browser(program)
    try:
        look(server, browser, arguments.screenshot)
    finally:
        browser.close()
        server.stop()
    print("browser: the status page shows processes, a connection and its end, live")


if __name__ == "__main__":
    main()
