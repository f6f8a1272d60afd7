"""The interpreter's own tests of multiprocessing, with this package in the place of multiprocessing.

python python/conformance.py [--fast] [--method METHOD]… [PATTERN]…

The tests come from the interpreter's test package, and are read at run time: in a temporary directory, every
"multiprocessing" in them becomes "forkyard". The table counts by group, that is, by class. The exit code is 1 if a test
fails that is not among those that CONFORMANCE.md gives a reason for, and 77 if the interpreter has no such tests.
"""

import argparse
import collections
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

METHODS = ("zygote", "fork", "spawn", "forkserver")

# What is quick, and closest to what is this package's own.
FAST = (
    "WithProcessesTestLock.*",
    "WithProcessesTestRLock.*",
    "WithProcessesTestSemaphore.*",
    "WithProcessesTestEvent.*",
    "WithProcessesTestValue.*",
    "WithProcessesTestArray.*",
    "WithProcessesTestSharedCTypes.*",
    "WithProcessesTestHeap.*",
    "WithProcessesTestQueue.*",
    "WithProcessesTestSharedMemory.*",
    "WithProcessesTestFinalize.*",
    "WithProcessesTestLogging.*",
    "WithProcessesTestCondition.test_notify*",
    "WithProcessesTestBarrier.test_barrier",
    "WithProcessesTestProcess.test_[a-fh-oq-z]*",
    "WithProcessesTestSubclassingProcess.*",
    "TestSimpleQueue.*",
    "TestStartMethod.*",
    "TestImportStar.*",
)

MAIN = """
import faulthandler, fnmatch, gc, json, signal, sys, unittest
import _test_multiprocessing
from test import support

LONG_TIMEOUT = support.LONG_TIMEOUT

# A shell starts what runs in the background without it.
signal.signal(signal.SIGINT, signal.default_int_handler)

_test_multiprocessing.install_tests_in_module_dict(globals(), {method!r})


class Result(unittest.TextTestResult):
    def startTest(self, test):
        # What a failed test has left is not for the next one to warn of.
        gc.collect()
        tell(test, "crash", "its process ended, or it took longer than {limit} s")
        super().startTest(test)
        # A thread cannot be ended: terminate() waits for a task that one has begun, as the standard library's does.
        support.LONG_TIMEOUT = 5 if name(test).startswith("WithThreads") else LONG_TIMEOUT
        faulthandler.dump_traceback_later({limit}, exit=True)
        self.outcome, self.why = "pass", ""

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.outcome, self.why = "fail", str(err[1])

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.outcome, self.why = "fail", str(err[1])

    addError = addFailure

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.outcome, self.why = "skip", reason

    def stopTest(self, test):
        super().stopTest(test)
        faulthandler.cancel_dump_traceback_later()
        tell(test, self.outcome, self.why)


def name(test):
    return ".".join(test.id().split(".")[-2:])


def tell(test, outcome, why=""):
    with open({report!r}, "a") as report:
        print(json.dumps([name(test), outcome, why[:200]]), file=report)


def wanted(suite):
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from wanted(test)
        elif not {patterns!r} or any(fnmatch.fnmatchcase(name(test), pattern) for pattern in {patterns!r}):
            yield test


if __name__ == "__main__":
    loaded = unittest.TestLoader().loadTestsFromModule(sys.modules["__main__"])
    tests = list(wanted(loaded))
    for test in tests:
        tell(test, "waits")
    unittest.TextTestRunner(sys.stderr, resultclass=Result).run(unittest.TestSuite(tests))
"""


def rewritten(source):
    """Return a test program that uses forkyard wherever it used multiprocessing, and is found here."""
    source = source.replace("test._test_multiprocessing", "_test_multiprocessing")
    return re.sub(r"\bmultiprocessing\b(?! pool)", "forkyard", source)


def prepare(directory):
    """Put the tests into a directory, and the package beside them; false if the interpreter has none."""
    package = subprocess.run(
        [sys.executable, "-P", "-c", "import test, forkyard; print(test.__path__[0]); print(forkyard.__path__[0])"],
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    if len(package) != 2 or not Path(package[0], "_test_multiprocessing.py").exists():
        return False
    tests, forkyard = map(Path, package)
    for path in (tests / "_test_multiprocessing.py", *tests.glob("mp_*.py")):
        (directory / path.name).write_text(rewritten(path.read_text(encoding="utf-8")), encoding="utf-8")
    (directory / "forkyard").symlink_to(forkyard)
    return True


def run(directory, method, patterns, limit):
    """Run the tests with a start method: their outcomes and reasons, by name."""
    report, log = directory / f"report-{method}", directory / f"log-{method}"
    program = directory / f"suite_{method}.py"
    outcomes = {}
    while True:
        program.write_text(MAIN.format(method=method, limit=limit, report=str(report), patterns=tuple(patterns)))
        with log.open("w") as output:
            subprocess.run(
                [sys.executable, program.name],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=os.environ | {"TMPDIR": str(directory)},
                start_new_session=True,
            )
        before = sum(outcome == "waits" for outcome, _ in outcomes.values())
        for line in report.read_text().splitlines() if report.exists() else ():
            name, outcome, why = json.loads(line)
            outcomes[name] = outcome, why
        # Those that had not begun when one of them ended the process have another.
        patterns = [name for name, (outcome, _) in outcomes.items() if outcome == "waits"]
        if not patterns or len(patterns) == before:
            break
    # A class that skips itself as a whole does not begin its tests.
    outcomes |= {name: ("skip", "") for name in patterns if outcomes and outcomes[name][0] == "waits"}
    if not outcomes:
        print(log.read_text()[-4000:])
    return outcomes


def exceptions():
    """Return the tests that are listed with a reason."""
    listed = Path(__file__).with_name("CONFORMANCE.md").read_text(encoding="utf-8")
    return set(re.findall(r"^\| `([\w.]+)`", listed, flags=re.M))


def plain(name):
    """Return a test's name without how it is run."""
    return re.sub(r"^With(Processes|Threads|Manager)", "", name)


def group(name):
    """Return what a class tests."""
    return plain(name).partition(".")[0].removeprefix("_").removeprefix("Test")


def main():
    """Run, print the table, and tell by the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--fast", action="store_true", help="what takes seconds")
    parser.add_argument("--method", action="append", choices=METHODS, help="only this start method (repeatable)")
    parser.add_argument("--limit", type=int, default=120, help="seconds for one test")
    parser.add_argument("patterns", nargs="*", help="only tests like Class.test_name")
    chosen = parser.parse_args()
    patterns = chosen.patterns + (list(FAST) if chosen.fast else [])
    unexpected, listed = 0, exceptions()
    for method in chosen.method or METHODS:
        with tempfile.TemporaryDirectory(prefix="fy", ignore_cleanup_errors=True) as directory:
            if not prepare(Path(directory)):
                print("skipped: this interpreter has no test._test_multiprocessing", file=sys.stderr)
                return 77
            outcomes = run(Path(directory), method, patterns, chosen.limit)
        table = collections.defaultdict(collections.Counter)
        for name, (outcome, _) in outcomes.items():
            outcome = "expected" if outcome == "fail" and plain(name) in listed else outcome
            table[group(name)][outcome] += 1
        print(f"== CPython {sys.version.split()[0]}, {method}")
        print(f"{'group':24}{'pass':>6}{'skip':>6}{'fail':>6}{'crash':>6}{'expected':>10}")
        for title, row in [*sorted(table.items()), ("all", sum(table.values(), collections.Counter()))]:
            print(f"{title:24}" + "".join(f"{row[kind]:6}" for kind in ("pass", "skip", "fail", "crash")), end="")
            print(f"{row['expected']:10}")
        for name, (outcome, why) in sorted(outcomes.items()):
            if outcome == "crash" or (outcome == "fail" and plain(name) not in listed):
                print(f"{outcome}: {name}: {why}")
                unexpected += 1
        unexpected += not outcomes
    return 1 if unexpected else 0


if __name__ == "__main__":
    sys.exit(main())
