"""A quick part of the interpreter's own tests of multiprocessing: see CONFORMANCE.md for the rest."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[1] / "conformance.py"


def test_the_interpreters_own_tests():
    # They have deadlines of their own.
    signal.alarm(0)
    run = [sys.executable, "-P", str(RUNNER), "--fast", "--method", "zygote"]
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stdout + done.stderr
