"""Opens files that may come from anybody."""
import errno
import os
import stat


def openRegular(path):
    """The file `path`, open for reading bytes.

    Raises:
        OSError: it cannot be opened, or it is a pipe or a device, which may have no end.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, 'it is no regular file', path)
    return open(path, 'rb')
