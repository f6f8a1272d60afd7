"""The standard library's ``multiprocessing.dummy``: the same interface on threads."""

import sys
from multiprocessing import dummy
from multiprocessing.dummy import connection

sys.modules[__name__ + ".connection"] = connection
sys.modules[__name__] = dummy
