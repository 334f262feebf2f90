"""Reading one image's file: its features and captions."""
import contextlib
import io
import math
import operator
import os

import numpy as np
import torch

from utils.data.captionWords import START
from utils.files.errors import UserError
from utils.files.regular import openRegular
from utils.files.safePickle import RestrictedUnpickler

DETECTIONS = 10         # of an image, in the layout of the course
FILES_LOOKED_AT = 5     # for the shape of the features
MOST_WORDS = 1000       # of a caption, and captions of an image; people's captions have up to 50
MOST_LETTERS = 10_000   # of a caption
LARGEST_TOKEN = 2 ** 31 - 1
CAPTION_KEYS = ('original_captions', 'captions', 'captionsAsTokens')


class _Unusable(Exception):
    """What is wrong with a file, as a sentence without its end."""


def shapeOfFeatures(paths, expected):
    """The most frequent shape of the features among the first files.

    Args:
        paths: the files.
        expected: list, the shape to return where none of them has features of as many
            dimensions; `checkFiles` says what is wrong with them.

    Returns:
        list, such as [2048] or [10, 2048].
    """
    shapes = []
    for path in paths[:FILES_LOOKED_AT]:
        with contextlib.suppress(Exception):  # whatever a broken file leads to
            image, _ = _unpickled(path)
            shapes.append(list(image['cnn_features'].shape))
    shapes = [shape for shape in shapes if len(shape) == len(expected) and 0 not in shape]
    return max(shapes, key=shapes.count, default=expected)


def loadImage(path, shape):
    """One image's file.

    Args:
        path: the file's.
        shape: list, [D] or [K, D], which its features must have.

    Returns:
        dict of `cnn_features` (float32 tensor of that shape), `imgPath`, `original_captions`
        (list of str), `captions` (list of word lists), `captionsAsTokens` (list of token lists,
        plain integers), and `boxes` where the file has them (float32 array [K, 4], x1 y1 x2 y2
        in pixels).

    Raises:
        UserError: the file cannot be read or is broken, a key is missing, features or boxes have
            another shape or are not finite, or a caption is not a list of words, is longer than
            any real one, lacks the start token or has impossible tokens.
    """
    return loadWithStamp(path, shape)[0]


def loadWithStamp(path, shape):
    """As `loadImage`, and beside the dict the stamp (size, time of the last change in ns, offset).

    `offset` is where the file holds the features as raw float32 values, -1 where it does not.
    """
    try:
        image, stamp = _unpickled(path)
        image = _checked(image, shape)
    except OSError as error:
        raise UserError(f'The feature file {path} cannot be read: {error.strerror}.') from None
    except Exception as error:  # whatever a broken file leads to
        if isinstance(error, _Unusable):
            fault = str(error)
        elif isinstance(error, KeyError):
            fault = f'it has no {error}'
        else:
            fault = f'{type(error).__name__}: {error}'
        raise UserError(f'The feature file {path} cannot be used: {fault}. '
                        'Copy it again from where the data came from.') from None
    data, size, time = stamp
    return image, (size, time, data.find(image['cnn_features'].numpy()))


def readRaw(path, stamp, offset, features):
    """Reads raw features into a float32 array.

    Returns:
        whether it could: not where the offset is -1, where size or time are not those of `stamp`,
        nor on a system without preadv.
    """
    if offset < 0 or not hasattr(os, 'preadv'):
        return False
    descriptor = os.open(path, os.O_RDONLY)
    try:
        status = os.fstat(descriptor)
        return ((status.st_size, status.st_mtime_ns) == stamp
                and os.preadv(descriptor, [features], offset) == features.nbytes)
    finally:
        os.close(descriptor)


def _unpickled(path):
    """The file's value, and a tuple of its bytes, size and time of the last change."""
    with openRegular(path) as f:
        status = os.fstat(f.fileno())
        data = f.read()
    return RestrictedUnpickler(io.BytesIO(data)).load(), (data, len(data), status.st_mtime_ns)


def _checked(image, shape):
    features = _floats(image['cnn_features'], 'features')
    if list(features.shape) != shape:
        raise _Unusable(f'its features have the shape {list(features.shape)}, not {shape}')
    checked = {
        'cnn_features': torch.from_numpy(features),
        'imgPath': _texts([image['imgPath']])[0],
        'original_captions': _texts(image['original_captions']),
        'captions': [_texts(words) for words in _sequence(image['captions'])],
        'captionsAsTokens': [list(map(operator.index, _sequence(tokens)))
                             for tokens in _sequence(image['captionsAsTokens'])]}
    letters = [len(caption) for caption in checked['original_captions']]
    letters += [sum(map(len, words)) for words in checked['captions']]
    if max(letters, default=0) > MOST_LETTERS:
        raise _Unusable(f'a caption has more than {MOST_LETTERS:,} letters')
    numbers = {len(checked[key]) for key in CAPTION_KEYS}
    if numbers == {0} or len(numbers) != 1:
        raise _Unusable(f'its lists {", ".join(CAPTION_KEYS)} are empty or of different lengths')
    for tokens in checked['captionsAsTokens']:
        if tokens[:1] != [START] or min(tokens) < 0 or max(tokens) > LARGEST_TOKEN:
            raise _Unusable('a caption of captionsAsTokens does not begin with the start token '
                            f'{START}, or has one below 0 or above {LARGEST_TOKEN}')
    if 'boxes' in image:
        boxes = _floats(image['boxes'], 'boxes')
        if list(boxes.shape[1:]) != [4]:
            raise _Unusable(f'its boxes have the shape {list(boxes.shape)}, not [K, 4]')
        checked['boxes'] = boxes
    return checked


def _floats(value, what):
    """A contiguous float32 array of an array or a tensor, all of it finite."""
    if torch.is_tensor(value) and not value.is_complex():
        value = value.detach().float().numpy()
    if not isinstance(value, np.ndarray) or np.iscomplexobj(value):
        raise _Unusable(f'its {what} are a {type(value).__name__}, not an array of real numbers')
    with np.errstate(over='ignore', invalid='ignore'):  # what becomes infinite is named below
        value = np.require(value, np.float32, 'CW')
        # a finite sum says that all are finite; where it is not, they may be so nevertheless
        if not math.isfinite(value.sum()) and not np.isfinite(value).all():
            raise _Unusable(f'its {what} hold values that are not finite')
    return value


def _sequence(value):
    """The value, if it is a sequence no longer than captions are.

    Nested lists that stand for more than there is memory are not looked into.
    """
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise _Unusable(f'a {type(value).__name__} stands where a list of captions, words or '
                        'tokens is expected')
    if len(value) > MOST_WORDS:
        raise _Unusable(f'it has a caption of {len(value):,} words, or as many captions; at most '
                        f'{MOST_WORDS:,} are expected')
    return value


def _texts(value):
    texts = list(_sequence(value))
    for text in texts:
        if not isinstance(text, str):
            raise _Unusable(f'a {type(text).__name__} stands where a text is expected')
    return [str(text) for text in texts]  # numpy's texts become plain ones
