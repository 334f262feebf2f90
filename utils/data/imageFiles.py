"""Reading the images' files, their features and captions, and the check of a folder of them.

The check reads each file once and remembers what was found. So files are checked again only where
they are new or have changed, and training never unpickles the others: it knows where the features
lie in a file, and the captions.
"""
import contextlib
import hashlib
import io
import operator
import os
from functools import partial
from multiprocessing.pool import ThreadPool

import numpy as np
import torch

from utils.data.captionWords import START
from utils.files.errors import UserError, foreignFile, openRegular
from utils.files.ownFiles import writePickle
from utils.files.safePickle import RestrictedUnpickler, loadPickle
from utils.processes.progress import progressBar

DETECTIONS = 10         # of an image, in the layout of the course
FILES_LOOKED_AT = 5     # for the shape of the features
BYTES_LOOKED_FOR = 1024
MOST_TOKENS = 1000      # of a caption; people's captions have up to 50 words
FAULTS_NAMED = 3        # of many unusable files
CHECK_VERSION = 2       # raise when `loadImage` begins to refuse what it read before
FILES_AT_ONCE = 50      # of a thread


def shapeOfFeatures(paths, expected):
    """The shape of the features in the first file that has them.

    Args:
        paths: the files.
        expected: list, the shape to return if none of the first has features with so many
            dimensions; `checkFiles` says what is wrong with them.

    Returns:
        list, such as [2048] or [10, 2048].
    """
    for path in paths[:FILES_LOOKED_AT]:
        with contextlib.suppress(Exception):  # whatever a broken file leads to
            shape = list(loadPickle(path)['cnn_features'].shape)
            if len(shape) == len(expected) and 0 not in shape:
                return shape
    return expected


def loadImage(path, shape):
    """One image's file.

    Args:
        path: the file's.
        shape: list, [D] or [K, D], which its features must have.

    Returns:
        dict of `cnn_features` (float32 tensor of that shape), `imgPath`, `original_captions`
        (list of str), `captions` (list of word lists), `captionsAsTokens` (list of token lists,
        plain integers), and `boxes` where the file has them (float32 array [K, 4], x1 y1 x2 y2
        in pixels); the stamp: size, time of the last change in ns, and offset of the features in
        the file as raw float32 values, -1 if it does not hold them so.

    Raises:
        UserError: the file cannot be read or is broken, a key is missing, features or boxes have
            another shape or are not finite, or a caption is not a list of words, lacks the start
            token, has impossible tokens or too many.
    """
    with foreignFile(path, 'Copy it again from where the data came from.'):
        with openRegular(path) as f:
            data, status = f.read(), os.fstat(f.fileno())
        image = checked(RestrictedUnpickler(io.BytesIO(data)).load(), shape)
    raw = image['cnn_features'].numpy().tobytes()
    offset = data.find(raw[:BYTES_LOOKED_FOR])  # all of them would take as long as all the rest
    if not data.startswith(raw, offset):
        offset = data.find(raw)  # where they begin with zeros, as do the bytes before them
    return image, (len(data), status.st_mtime_ns, offset)


def readRaw(path, stamp, features):
    """Reads raw features into a float32 array.

    Returns:
        whether it could: not if the stamp's offset is -1, or if the file's size or time differs
        from it.
    """
    size, time, offset = stamp
    if offset < 0:
        return False
    with open(path, 'rb', buffering=0) as f:
        status = os.fstat(f.fileno())
        f.seek(offset)
        return ((status.st_size, status.st_mtime_ns) == (size, time)
                and f.readinto(features) == features.nbytes)


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
    valid_for = [CHECK_VERSION, folder, dataset.features_shape]
    code = hashlib.sha1(repr(valid_for).encode()).hexdigest()[:6]
    memory = os.path.join(modelParam['modelsDir'], f'checkedFiles_{code}.pickle')
    known = {}
    with contextlib.suppress(Exception):  # it may be missing or broken
        known = dict(loadPickle(memory))
    before = known.copy()

    def entryOf(path):
        """The file's, as in `dataset.checked`, or a text that says why it cannot be used."""
        with contextlib.suppress(Exception):  # the file may be new, or gone
            status, entry = os.stat(path), known[os.path.basename(path)]
            if entry[:2] == (status.st_size, status.st_mtime_ns):
                return entry
        try:
            image, stamp = loadImage(path, dataset.features_shape)
        except UserError as error:
            return str(error)
        captions = '\n'.join(' '.join(map(str, tokens)) for tokens in image['captionsAsTokens'])
        return (*stamp, image['imgPath'], captions)

    faults = []
    with ThreadPool(max(1, modelParam['numbOfCPUThreadsUsed'])) as pool:
        entries = pool.imap(entryOf, dataset.paths, FILES_AT_ONCE)
        bar = progressBar(entries, 'checking files', modelParam, len(dataset))
        for entry, name in zip(bar, dataset.names):
            if isinstance(entry, str):
                faults.append(entry)
            else:
                known[name] = entry
    if known != before:
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


def checked(image, shape):
    """What a file holds, as `loadImage` returns it.

    Raises:
        ValueError, TypeError, KeyError: training could not use it; the message says why.
    """
    found = {'cnn_features': torch.from_numpy(floats(image['cnn_features'], shape, 'features')),
             'imgPath': _text(image['imgPath']),
             'original_captions': _listOf(_text, image['original_captions']),
             'captions': _listOf(partial(_listOf, _text), image['captions']),
             'captionsAsTokens': _listOf(partial(_listOf, operator.index),
                                         image['captionsAsTokens'])}
    captions = found['captionsAsTokens']
    if not len(captions) == len(found['captions']) == len(found['original_captions']) > 0:
        raise ValueError('its lists original_captions, captions and captionsAsTokens are empty or '
                         'of different lengths')
    for tokens in captions:
        if tokens[:1] != [START] or len(tokens) > MOST_TOKENS or min(tokens) < 0:
            raise ValueError(f'a caption of captionsAsTokens has no start token {START}, a token '
                             f'below 0, or more than {MOST_TOKENS:,} tokens')
    if 'boxes' in image:
        found['boxes'] = floats(image['boxes'], [len(image['boxes']), 4], 'boxes')
    return found


def floats(value, shape, what):
    """An array or tensor of this shape as a contiguous float32 array, all of it finite.

    Raises:
        ValueError, TypeError: it is no such array; the message says why.
    """
    found = list(value.shape) if hasattr(value, 'shape') else type(value).__name__
    if found != shape:
        raise ValueError(f'its {what} have the shape {found}, not {shape}')
    if torch.is_tensor(value):
        value = value.detach().float().numpy()
    with np.errstate(over='ignore'):  # what becomes infinite is named below
        value = value.astype(np.float32, order='C', casting='same_kind')  # no complex numbers
    if not np.isfinite(value).all():
        raise ValueError(f'its {what} hold values that are not finite')
    return value


def _listOf(make, value):
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise ValueError(f'expected a list, found {type(value).__name__}')
    return list(map(make, value))


def _text(value):
    if not isinstance(value, str):
        raise ValueError(f'expected a string, found {type(value).__name__}')
    return str(value)  # numpy's texts become plain ones
