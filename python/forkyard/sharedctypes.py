"""The standard library's ``multiprocessing.sharedctypes``, as it is."""

import sys
from multiprocessing import sharedctypes

sys.modules[__name__] = sharedctypes
