"""Writing files so that a reader never meets half of one, and reading JSON files."""
import contextlib
import errno
import json
import math
import os
import pickle
import shutil
import time

from utils.files.errors import UserError

PARTIAL = 'partial_'  # what the names of files begin with that are being written


def writeAtomically(path, data, outlive_power_failure=True):
    """Replaces the file `path` as a whole by `data`, bytes; whatever interrupts this leaves the old file untouched.

    Without `outlive_power_failure` that holds for the process's own end, and ten times as many files can be written.

    Raises:
        UserError: the file cannot be written, for lack of room or otherwise.
    """
    folder, name = os.path.split(path)
    partial_path = os.path.join(folder, f'{PARTIAL}{os.getpid()}_{name}')
    try:
        with open(partial_path, 'wb') as f:
            f.write(data)
            if outlive_power_failure:
                f.flush()
                _sync(f.fileno())
        os.replace(partial_path, path)
    except OSError as error:
        what_to_do = 'Make it possible to write there'
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what_to_do = (f"It needs {_inWords(len(data))}; {_inWords(shutil.disk_usage(folder or '.').free)} are free on that "
                          'disk, of which a quota may leave you less. Make room')
        raise UserError(f'{path} cannot be written: {error.strerror}. {what_to_do}, then start the same command again; '
                        'what was saved before is untouched.') from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial_path)
    if outlive_power_failure and hasattr(os, 'O_DIRECTORY'):
        with contextlib.suppress(OSError):  # the file has been replaced; some network file systems refuse to do more
            descriptor = os.open(folder or '.', os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _sync(descriptor):
    """Brings a file's data to the disk, where its file system can."""
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
            raise


def _inWords(size):
    """A number of bytes in kB or MB."""
    return f'{size / 1e6:,.1f} MB' if size >= 1e5 else f'{math.ceil(size / 1e3)} kB'


def removePartialFiles(folder):
    """Removes what writers that were killed have left: checkpoints at once, other files when they are an hour old.

    Only for the process that has the folder's lock: checkpoints are written by no other.
    """
    for entry in os.scandir(folder):
        if entry.name.startswith(PARTIAL) and (entry.name.endswith('.pt') or time.time() - entry.stat().st_mtime > 3600):
            os.remove(entry.path)


def writeJson(path, value):
    """Replaces the file `path` as a whole by `value`, a list or a dict, as JSON: a line per item or key."""
    def line(part):
        return json.dumps(part, ensure_ascii=False)

    is_dict = isinstance(value, dict)
    lines = [f'{line(str(key))}: {line(part)}' for key, part in value.items()] if is_dict else map(line, value)
    text = ',\n'.join(lines).join(('{\n', '\n}\n') if is_dict else ('[\n', '\n]\n'))
    writeAtomically(path, text.encode('utf-8', 'replace'))


def writePickle(path, value):
    """Replaces the file `path`, one of very many, as a whole by `value` as a pickle that Python 3.4 and newer read."""
    writeAtomically(path, pickle.dumps(value, protocol=4), outlive_power_failure=False)


def readJson(path, default):
    """The value in the JSON file `path`, or `default` where there is no such file.

    Raises:
        UserError: the file is no JSON.
    """
    if not os.path.exists(path):
        return default
    try:
        with open(path, encoding='utf-8') as f:
            return json.load(f)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path} is broken: {error}. Move it away, then start the same command again.') from None
