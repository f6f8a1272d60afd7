"""The standard library's ``multiprocessing.popen_spawn_win32``, as it is."""

import sys
from multiprocessing import popen_spawn_win32

sys.modules[__name__] = popen_spawn_win32
