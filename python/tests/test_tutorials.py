"""The programs of every tutorial, unchanged but for the import, print what they print with the standard library."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import BUFFERED

TUTORIALS = sorted((Path(__file__).parent / "tutorials").glob("*.py"))
CHOOSE = (
    '\nif __name__ == "__main__":\n    import forkyard, sys; sys.argv[1:] and forkyard.set_start_method(sys.argv[1])\n'
)


def ours(source):
    source = re.sub(r"^import multiprocessing$", "import forkyard as multiprocessing", source, flags=re.M)
    source = re.sub(r"^from multiprocessing import", "from forkyard import", source, flags=re.M)
    # The choice of a start method stands before the program's own main part.
    head, main, rest = source.partition('\nif __name__ == "__main__":\n')
    return head + CHOOSE + main + rest


@pytest.fixture(scope="module")
def standard():
    """What each program prints with the standard library, and how its errors end."""
    return {
        path: outcome(subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=200, env=BUFFERED))
        for path in TUTORIALS
    }


def outcome(done):
    # Tracebacks have lines of the launching code in them; the last line is what is told.
    return sorted(done.stdout.splitlines()), done.stderr.splitlines()[-1:], done.returncode


@pytest.mark.parametrize("start", ["default", "fork", "spawn", "forkserver"])
@pytest.mark.parametrize("path", TUTORIALS, ids=lambda path: path.stem)
def test_a_tutorial_prints_what_it_prints_with_the_standard_library(program, standard, path, start):
    source = path.read_text()
    assert ours(source).count("forkyard") > 2, "nothing was replaced"
    done = program(ours(source), *(() if start == "default" else (start,)))
    assert outcome(done) == standard[path]
    assert done.stdout or done.stderr
