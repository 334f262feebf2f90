"""Where the project and the folders of its runs lie, and one process at a time in a folder."""
import os

import filelock

from utils.files.errors import UserError

PROJECT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SECOND_MODEL = ("To train a second model beside it, change modelParam['modelName']. If there is no "
                "such run, the folder's file system cannot lock files: set modelParam['modelsDir'] "
                'to a folder on another disk.')

_locks = []  # kept, as a lock is freed when its object is deleted


def inProject(path):
    """The absolute path of one that is relative to the project, wherever the script starts."""
    return os.path.join(PROJECT, path)


def runFolder(modelParam, kind='modelsDir'):
    """The folder of a run's models ('modelsDir') or plots ('img_dir'), created when missing."""
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    os.makedirs(folder, exist_ok=True)
    return folder


def lockFolder(folder, otherwise=SECOND_MODEL):
    """Locks a folder for this process, until it ends in whatever way.

    Args:
        folder: a run's, or a data folder that is being built.
        otherwise: what to do if the other process is not to be waited for, a sentence.

    Returns:
        the lock, a `filelock.FileLock`.

    Raises:
        UserError: another process has the lock.
    """
    # In a notebook a training may follow another in the same process, which has the lock already.
    lock = filelock.FileLock(os.path.join(folder, 'lock'), is_singleton=True)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout:
        raise UserError(f'Another run works in {folder}. Wait for that run or end it. '
                        f'{otherwise}') from None
    except NotImplementedError:
        pass  # a file system without locks
    _locks.append(lock)
    return lock
