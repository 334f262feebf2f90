"""One training at a time in a run's folder."""
import errno
import os
import socket
import time

from utils.files.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: there two runs in one folder are not noticed
    fcntl = None

_locks = []  # open files, whose locks last as long as this process


def lockFolder(folder):
    """Marks a run's folder as in use by this process, until it ends in whatever way; the mark is a lock on its file `lock`.

    Raises:
        UserError: another process has it.
    """
    if fcntl is None:
        return
    f = open(os.path.join(folder, 'lock'), 'a+', encoding='utf-8')
    try:
        fcntl.lockf(f, fcntl.LOCK_EX | fcntl.LOCK_NB)  # a lock that loader processes do not inherit
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
