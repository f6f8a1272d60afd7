"""The standard library's ``multiprocessing.reduction``, as it is."""

import sys
from multiprocessing import reduction

sys.modules[__name__] = reduction
