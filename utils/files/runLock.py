"""One training at a time in a run's folder."""
import errno
import os
import socket
import time

from utils.files.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None
    import msvcrt

BYTE = 10 ** 6  # the one that is locked: beyond the text, which others may read then on Windows too

_locks = []  # open files, whose locks last as long as this process


def lockFolder(folder):
    """Marks a run's folder as in use by this process, until it ends in whatever way; the mark is a lock on its file `lock`.

    Raises:
        UserError: another process has it.
    """
    f = open(os.path.join(folder, 'lock'), 'a+', encoding='utf-8')
    try:
        _lock(f)
    except OSError as error:
        f.seek(0)
        holder = f.read().strip()
        f.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):
            raise UserError(f'This task is already being trained in {folder}, by {holder or "another process"}. Wait for '
                            "that run or end it; to train a second model beside it, change modelParam['modelName'].") from None
        return  # a file system without locks
    _locks.append(f)
    f.truncate(0)
    f.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M')}\n")
    f.flush()


def _lock(f):
    """Locks a byte of an open file for this process alone, not for those that it starts; OSError where it is locked."""
    if fcntl is not None:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, BYTE)
    else:
        os.lseek(f.fileno(), BYTE, os.SEEK_SET)
        msvcrt.locking(f.fileno(), msvcrt.LK_NBLCK, 1)
