"""The standard library's ``multiprocessing.queues``, as it is."""

import sys
from multiprocessing import queues

sys.modules[__name__] = queues
