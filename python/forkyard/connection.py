"""The standard library's ``multiprocessing.connection``, as it is."""

import sys
from multiprocessing import connection

sys.modules[__name__] = connection
