"""The standard library's ``multiprocessing.forkserver``, as it is."""

import sys
from multiprocessing import forkserver

sys.modules[__name__] = forkserver
