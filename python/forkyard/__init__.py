"""Processes, and what they share, with the interface of ``multiprocessing``: ``import forkyard as multiprocessing``.

Any process may be killed at any instruction. Nobody else hangs: a lock held by the dead goes to the next waiter, who is
told; nothing stays behind. Everything else is as the standard library has it.
"""

from . import _errors
from . import connection as connection
from . import context as context
from . import process as process
from . import reduction as reduction
from . import util as util
from ._forkyard import __version__ as __version__
from .context import _default_context

DeadlockError = _errors.DeadlockError
OwnerDiedError = _errors.OwnerDiedError
OwnerDiedWarning = _errors.OwnerDiedWarning
WorkerDiedError = _errors.WorkerDiedError

Array = _default_context.Array
AuthenticationError = _default_context.AuthenticationError
Barrier = _default_context.Barrier
BoundedSemaphore = _default_context.BoundedSemaphore
BufferTooShort = _default_context.BufferTooShort
Condition = _default_context.Condition
Event = _default_context.Event
JoinableQueue = _default_context.JoinableQueue
Lock = _default_context.Lock
Manager = _default_context.Manager
Pipe = _default_context.Pipe
Pool = _default_context.Pool
Process = _default_context.Process
ProcessError = _default_context.ProcessError
Queue = _default_context.Queue
RLock = _default_context.RLock
RawArray = _default_context.RawArray
RawValue = _default_context.RawValue
Semaphore = _default_context.Semaphore
SimpleQueue = _default_context.SimpleQueue
TimeoutError = _default_context.TimeoutError
Value = _default_context.Value
active_children = _default_context.active_children
allow_connection_pickling = _default_context.allow_connection_pickling
cpu_count = _default_context.cpu_count
current_process = _default_context.current_process
freeze_support = _default_context.freeze_support
get_all_start_methods = _default_context.get_all_start_methods
get_context = _default_context.get_context
get_logger = _default_context.get_logger
get_start_method = _default_context.get_start_method
log_to_stderr = _default_context.log_to_stderr
parent_process = _default_context.parent_process
reducer = _default_context.reducer
set_executable = _default_context.set_executable
set_forkserver_preload = _default_context.set_forkserver_preload
set_start_method = _default_context.set_start_method

SUBDEBUG = 5
SUBWARNING = 25

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "DeadlockError",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "OwnerDiedError",
    "OwnerDiedWarning",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "WorkerDiedError",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]
