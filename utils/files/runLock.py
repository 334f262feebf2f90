"""One training at a time in a run's folder."""
import os

import filelock

from utils.files.errors import UserError

_locks = []  # kept, as a lock is freed when its object is deleted


def lockFolder(folder):
    """Locks a run's folder for this process, until it ends in whatever way.

    Raises:
        UserError: another process has the lock.
    """
    lock = filelock.FileLock(os.path.join(folder, 'lock'))
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f'This task is already being trained in {folder}. Wait for that run or '
                        'end it; to train a second model beside it, change '
                        "modelParam['modelName'].") from None
    except NotImplementedError:
        return  # a file system without locks
    _locks.append(lock)
