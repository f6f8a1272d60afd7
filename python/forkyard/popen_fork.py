"""The standard library's ``multiprocessing.popen_fork``, as it is."""

import sys
from multiprocessing import popen_fork

sys.modules[__name__] = popen_fork
