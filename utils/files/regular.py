"""Opening files that strangers may have put there."""
import errno
import os
import stat


def openRegular(path):
    """The file `path`, open for reading bytes.

    Raises:
        OSError: it cannot be opened, or it is no regular file but a pipe or a device, which could be read for ever.
    """
    # a pipe that nobody writes to would block even its opening
    descriptor = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0) | getattr(os, 'O_BINARY', 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, 'it is no regular file', path)
    return open(descriptor, 'rb')
