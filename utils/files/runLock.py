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
    # In a notebook a training may follow another in the same process, which has the lock already.
    lock = filelock.FileLock(os.path.join(folder, 'lock'), is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f'This task is already being trained in {folder}. Wait for that run or '
                        'end it; to train a second model beside it, change '
                        "modelParam['modelName']. If there is no such run, the folder's file "
                        "system cannot lock files: set modelParam['modelsDir'] to a folder on "
                        'another disk.') from None
    except NotImplementedError:
        return  # a file system without locks
    _locks.append(lock)
