"""The check of a feature folder: each file is read once, and what was found is remembered.

So files are checked again only where they are new or have changed, and training never unpickles
the others: it knows where the features lie in a file, and the captions.
"""
import os
from concurrent.futures import ThreadPoolExecutor

from utils.data.imageFiles import loadWithStamp
from utils.files.atomic import writePickle
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle
from utils.processes.progress import progressBar

FAULTS_NAMED = 3      # of many unusable files
FILES_AT_ONCE = 500
CHECK = 2             # to be raised when `loadImage` begins to refuse what it read before


def checkFiles(dataset, modelParam, memory):
    """Reads every file that is new or has changed since the last check; sets `dataset.checked`.

    Args:
        dataset: a `CaptionDataset`.
        modelParam: dict.
        memory: the path of the file that keeps what was found. Whatever is wrong with it only
            costs a new check.

    Raises:
        UserError: files cannot be used; it says how many and names some.
    """
    folder = os.path.dirname(dataset.paths[0])
    valid_for = [CHECK, folder, dataset.features_shape]
    names = [os.path.basename(path) for path in dataset.paths]
    known = _remembered(memory, valid_for)
    unknown = [path for name, path in zip(names, dataset.paths)
               if name not in known or known[name][:2] != _stamp(path)]
    faults = []
    if unknown:
        found, faults = _check(unknown, dataset.features_shape, modelParam)
        known.update(found)
        known = {name: known[name] for name in names if known.get(name)}
        writePickle(memory, {'validFor': valid_for, 'files': known})
    if faults:
        more = '\n…' if len(faults) > FAULTS_NAMED else ''
        raise UserError(f'{len(faults):,} of the {len(names):,} feature files in {folder} cannot '
                        'be used:\n' + '\n'.join(faults[:FAULTS_NAMED]) + more)
    dataset.checked = [known[name] for name in names]


def _check(paths, shape, modelParam):
    """Dict file name → what is known of it, None where it cannot be used; list of the faults."""
    def check(path):
        try:
            image, stamp = loadWithStamp(path, shape)
        except UserError as error:
            faults.append(str(error))
            return None
        captions = '\n'.join(' '.join(map(str, tokens)) for tokens in image['captionsAsTokens'])
        return (*stamp, image['imgPath'], captions)

    found, faults = {}, []
    starts = range(0, len(paths), FILES_AT_ONCE)
    with ThreadPoolExecutor(max(1, modelParam['numbOfCPUThreadsUsed'])) as pool:
        for start in progressBar(starts, 'checking files', modelParam):
            part = paths[start:start + FILES_AT_ONCE]
            found.update(zip(map(os.path.basename, part), pool.map(check, part)))
    return found, sorted(faults)


def _stamp(path):
    """What changes with a file, its size and time; None where it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns


def _remembered(memory, valid_for):
    """Dict file name → (size, time, offset, imgPath, captions), as in `CaptionDataset.checked`."""
    try:
        kept = loadPickle(memory)
        return kept['files'] if kept['validFor'] == valid_for else {}
    except Exception:  # as it may be missing, broken or of another version
        return {}
