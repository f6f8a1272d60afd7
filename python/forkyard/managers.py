"""The standard library's ``multiprocessing.managers``, as it is."""

import sys
from multiprocessing import managers

sys.modules[__name__] = managers
