"""The standard library's ``multiprocessing.synchronize``, as it is."""

import sys
from multiprocessing import synchronize

sys.modules[__name__] = synchronize
