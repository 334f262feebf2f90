"""The check of a feature folder: each file is read once, and what was found is remembered.

So files are checked again only where they are new or have changed, and training never unpickles
the others: it knows where the features lie in a file, and the captions.
"""
import contextlib
import hashlib
import os
from multiprocessing.pool import ThreadPool

from utils.data.imageFiles import loadImage
from utils.files.errors import UserError
from utils.files.ownFiles import writePickle
from utils.files.safePickle import loadPickle
from utils.processes.progress import progressBar

FAULTS_NAMED = 3    # of many unusable files
CHECK = 2           # to be raised when `loadImage` begins to refuse what it read before
FILES_AT_ONCE = 50  # of a thread


def checkFiles(dataset, modelParam):
    """Reads every file that is new or has changed since the last check; sets `dataset.checked`.

    What was found is kept in `modelsDir`, for all runs. Whatever is wrong with that file only costs
    a new check.

    Args:
        dataset: a `CaptionDataset`.
        modelParam: dict.

    Raises:
        UserError: files cannot be used, and it says how many and names some; or no caption has
            words.
    """
    folder = os.path.dirname(dataset.paths[0])
    valid_for = [CHECK, folder, dataset.features_shape]
    code = hashlib.sha1(repr(valid_for).encode()).hexdigest()[:6]
    memory = os.path.join(modelParam['modelsDir'], f'checkedFiles_{code}.pickle')
    known = {}
    with contextlib.suppress(Exception):  # it may be missing or broken
        known = dict(loadPickle(memory))

    def isKnown(name):
        with contextlib.suppress(Exception):  # the file may be new, or gone
            status = os.stat(os.path.join(folder, name))
            return known[name][:2] == (status.st_size, status.st_mtime_ns)

    def check(index):
        try:
            image, stamp = loadImage(dataset.paths[index], dataset.features_shape)
        except UserError as error:
            return error
        captions = '\n'.join(' '.join(map(str, tokens)) for tokens in image['captionsAsTokens'])
        return (*stamp, image['imgPath'], captions)

    faults = []
    with ThreadPool(max(1, modelParam['numbOfCPUThreadsUsed'])) as pool:
        same = pool.map(isKnown, dataset.names, FILES_AT_ONCE)
        unknown = [index for index, is_known in enumerate(same) if not is_known]
        if unknown:
            found = pool.imap(check, unknown, FILES_AT_ONCE)
            for index, entry in zip(progressBar(unknown, 'checking files', modelParam), found):
                if isinstance(entry, UserError):
                    faults.append(str(entry))
                else:
                    known[dataset.names[index]] = entry
            with contextlib.suppress(UserError, OSError):
                os.makedirs(modelParam['modelsDir'], exist_ok=True)
                writePickle(memory, known)
    if faults:
        more = '\n…' if len(faults) > FAULTS_NAMED else ''
        raise UserError(f'{len(faults):,} of the {len(dataset):,} feature files in {folder} cannot '
                        'be used:\n' + '\n'.join(faults[:FAULTS_NAMED]) + more)
    dataset.checked = [known[name] for name in dataset.names]
    captions = (caption for *_, lines in dataset.checked for caption in lines.split('\n'))
    if not any(len(caption.split()) > 2 for caption in captions):  # more than start and end
        raise UserError(f'No caption of the feature files in {folder} has words. Copy them again '
                        'from where the data came from.')
