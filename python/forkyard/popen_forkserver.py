"""The standard library's ``multiprocessing.popen_forkserver``, as it is."""

import sys
from multiprocessing import popen_forkserver

sys.modules[__name__] = popen_forkserver
