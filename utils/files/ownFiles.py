"""The project's own files: where they lie, how they are written, and one process in a folder."""
import contextlib
import glob
import json
import os
import pickle
import secrets
import time

import filelock

from utils.files.errors import UserError, foreignFile, jsonIn

PROJECT = os.path.abspath(os.path.join(__file__, '../../..'))
SECOND_MODEL = ("To train a second model beside it, change modelParam['modelName']. If there is no "
                "such run, the folder's file system cannot lock files: set modelParam['modelsDir'] "
                'to a folder on another disk.')
PARTIAL = 'partial_'  # what the names of unfinished files begin with

_locks = {}  # by folder: the lock, which is freed when its object is deleted, and its file's status


def inProject(path):
    """The absolute path of a path relative to the project, wherever the script starts."""
    return os.path.join(PROJECT, os.path.expanduser(path))


def runFolder(modelParam, kind='modelsDir', name=''):
    """The folder of a run's models ('modelsDir') or plots ('img_dir'), created when missing, or the
    path of the file `name` in it.

    Raises:
        UserError: it cannot be made.
    """
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise UserError(f'The folder {folder} cannot be made: {error.strerror}. Set '
                        f'modelParam[{kind!r}] to a folder where you may write.') from error
    return os.path.join(folder, name)


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
    if wasMoved(folder):
        lock.release(force=True)
    try:
        lock.acquire(blocking=False)
        _locks[folder] = lock, os.stat(lock.lock_file)
    except filelock.Timeout:
        raise UserError(f'Another run works in {folder}. Wait for it, or end it. '
                        f'{otherwise}') from None
    except NotImplementedError:
        pass  # a file system without locks
    return lock


def wasMoved(folder):
    """Whether a folder that this process has locked is gone, or another one has its name."""
    if folder not in _locks:
        return False
    lock, status = _locks[folder]
    return not os.path.exists(lock.lock_file) or not os.path.samestat(
        os.stat(lock.lock_file), status)


def writeAtomically(path, data, outlive_power_failure=True):
    """Replaces the file `path` by `data`, bytes; if this is interrupted the old file stays.

    Without `outlive_power_failure` a power failure may lose the new file, and writing is ten
    times as fast.

    Raises:
        UserError: the file cannot be written.
    """
    folder, name = os.path.split(path)
    # the end of the name alone, as the whole may be as long as the system allows
    partial_path = os.path.join(folder, f'{PARTIAL}{secrets.token_hex(4)}_{name[-50:]}')
    try:
        with open(partial_path, 'wb') as f:
            f.write(data)
            if outlive_power_failure:
                f.flush()
                os.fsync(f.fileno())
        os.replace(partial_path, path)
    except OSError as error:
        raise UserError(f'{path} cannot be written: {error.strerror}. Make room for its '
                        f'{len(data):,} bytes, or make the folder writable, then start the same '
                        'command again; what was saved before is untouched.') from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(partial_path)


def removePartialFiles(folder):
    """Removes what killed processes have left in a folder that is locked for this process.

    Checkpoints go at once, as no other process writes them; other files when an hour old.
    """
    for path in glob.glob(f'{glob.escape(folder)}/{PARTIAL}*'):
        with contextlib.suppress(OSError):  # it is complete by now, or not ours
            if path.endswith('.pt') or os.path.getmtime(path) < time.time() - 3600:
                os.remove(path)


def writeJson(path, value):
    """Writes a list or a dict as JSON, a line per item or key, as `writeAtomically` does."""
    if isinstance(value, dict):
        text = json.dumps(value, ensure_ascii=False, indent=0)
    else:
        items = ',\n'.join(json.dumps(item, ensure_ascii=False) for item in value)
        text = f'[\n{items}\n]'
    writeAtomically(path, f'{text}\n'.encode('utf-8', 'replace'))


def writePickle(path, value):
    """Writes a value as a pickle that every Python 3 reads; fast, as there are very many."""
    writeAtomically(path, pickle.dumps(value, protocol=4), outlive_power_failure=False)


def readJson(path, default):
    """The value in the JSON file `path`, or `default` where there is no such file.

    Raises:
        UserError: the file is no JSON.
    """
    if not os.path.exists(path):
        return default
    with foreignFile(path, 'Move it away, then start the same command again.'):
        return jsonIn(path)
