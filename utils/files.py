"""Where the project lies, and writing files so that a reader never meets half of one."""
import json
import os
import pickle

PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARTIAL = 'partial_'  # what the names of files begin with that are being written


class UserError(Exception):
    """Something that the person who started a script can mend; the message says what is wrong, where, and what to do."""


def inProject(path):
    """An absolute path from one relative to the folder of the scripts, wherever the script was started."""
    return os.path.join(PROJECT, path)


def runFolder(modelParam, kind='modelsDir'):
    """The folder of this run's models ('modelsDir') or of its plots ('img_dir'), created when missing."""
    folder = os.path.join(modelParam[kind], modelParam['modelName'])
    os.makedirs(folder, exist_ok=True)
    return folder


def writeAtomically(path, write):
    """Replaces the file `path` as a whole: `write(partial_path)` writes the new one, which then takes the old one's place.

    Whatever interrupts this leaves the old file untouched.
    """
    folder, name = os.path.split(path)
    partial_path = os.path.join(folder, PARTIAL + name)  # the ending stays: savefig and others go by it
    try:
        write(partial_path)
        with open(partial_path, 'rb+') as f:
            os.fsync(f.fileno())
        os.replace(partial_path, path)
    finally:
        if os.path.exists(partial_path):
            os.remove(partial_path)


def writeJson(path, value):
    """Replaces the file `path` as a whole by `value` as JSON."""
    def write(partial_path):
        with open(partial_path, 'w', encoding='utf-8') as f:
            json.dump(value, f, indent=1, ensure_ascii=False)

    writeAtomically(path, write)


def writePickle(path, value):
    """Replaces the file `path` as a whole by `value` as a pickle that Python 3.4 and newer read."""
    def write(partial_path):
        with open(partial_path, 'wb') as f:
            pickle.dump(value, f, protocol=4)

    writeAtomically(path, write)


def readJson(path, default):
    """The value in the JSON file `path`, or `default` where there is no such file."""
    if not os.path.exists(path):
        return default
    with open(path, encoding='utf-8') as f:
        return json.load(f)
