"""The standard library's ``multiprocessing.pool``, as it is."""

import sys
from multiprocessing import pool

sys.modules[__name__] = pool
