"""Reading one image's file: its features and captions."""
import contextlib
import math
import operator

import numpy as np
import torch

from utils.data.captionWords import START
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle

DETECTIONS = 10         # of an image, in the layout of the course
FILES_LOOKED_AT = 5     # for the shape of the features
MOST_WORDS = 1000       # of a caption, and captions of an image; people's captions have up to 50
MOST_LETTERS = 10_000   # of a caption
CAPTION_KEYS = ('original_captions', 'captions', 'captionsAsTokens')

COPY_AGAIN = 'Copy it again from where the data came from.'


class _Unusable(Exception):
    """What is wrong with a file, and what to do, in words."""

    def __init__(self, what, what_to_do=COPY_AGAIN):
        super().__init__(f'{what}. {what_to_do}')


def shapeOfFeatures(paths, expected):
    """The shape that the features of most of the first files have, a list.

    Args:
        paths: the files.
        expected: the shape where none of them has features of as many dimensions: what is wrong is said when all are checked.
    """
    shapes = []
    for path in paths[:FILES_LOOKED_AT]:
        with contextlib.suppress(Exception):  # whatever a broken file leads to
            shapes.append(list(loadPickle(path)['cnn_features'].shape))
    shapes = [shape for shape in shapes if len(shape) == len(expected) and 0 not in shape]
    return max(shapes, key=shapes.count, default=expected)


def loadImage(path, shape):
    """One image's file.

    Args:
        path: the file's.
        shape: list, [D] or [K, D], which its features must have.

    Returns:
        dict of `cnn_features` (float32 tensor of that shape), `imgPath`, `original_captions` (list of str), `captions`
        (list of word lists), `captionsAsTokens` (list of token lists, plain integers), and `boxes` where the file has them
        (float32 array [K, 4], x1 y1 x2 y2 in pixels).

    Raises:
        UserError: the file cannot be read, is broken, lacks a key, its features or boxes have another shape or are not
            finite, or a caption is no list of words, is longer than any real one, has no start or impossible tokens.
    """
    try:
        return _checked(loadPickle(path), shape)
    except OSError as error:
        raise UserError(f'The feature file {path} cannot be read: {error.strerror}.') from None
    except KeyError as error:
        fault = _Unusable(f'it has no {error}')
    except _Unusable as error:
        fault = error
    except Exception as error:  # whatever a broken file leads to
        fault = _Unusable(f'{type(error).__name__}: {error}')
    raise UserError(f'The feature file {path} cannot be used: {fault}')


def _checked(image, shape):
    features = _array(image['cnn_features'], 'features')
    found = list(features.shape)
    if found != shape:
        raise _Unusable(f'its features have the shape {found}, not {shape}')
    checked = {
        'cnn_features': torch.from_numpy(_finiteFloats(features, 'features')),
        'imgPath': _texts([image['imgPath']])[0],
        'original_captions': _texts(image['original_captions']),
        'captions': [_texts(words) for words in _sequence(image['captions'])],
        'captionsAsTokens': [list(map(operator.index, _sequence(tokens))) for tokens in _sequence(image['captionsAsTokens'])]}
    letters = [*map(len, checked['original_captions']), *(sum(map(len, words)) for words in checked['captions'])]
    if max(letters, default=0) > MOST_LETTERS:
        raise _Unusable(f'a caption has more than {MOST_LETTERS:,} letters')
    numbers = {len(checked[key]) for key in CAPTION_KEYS}
    if numbers == {0} or len(numbers) != 1:
        raise _Unusable(f'its lists {", ".join(CAPTION_KEYS)} are empty or of different lengths')
    if any(tokens[:1] != [START] or min(tokens) < 0 for tokens in checked['captionsAsTokens']):
        raise _Unusable(f'a caption of captionsAsTokens does not begin with the start token {START}, or has one below 0')
    if 'boxes' in image:
        boxes = _array(image['boxes'], 'boxes')
        if list(boxes.shape[1:]) != [4]:
            raise _Unusable(f'its boxes have the shape {list(boxes.shape)}, not [K, 4]')
        checked['boxes'] = _finiteFloats(boxes, 'boxes')
    return checked


def _array(value, what):
    if not isinstance(value, (np.ndarray, torch.Tensor)):
        raise _Unusable(f'its {what} are a {type(value).__name__}, not an array')
    if value.is_complex() if torch.is_tensor(value) else np.iscomplexobj(value):
        raise _Unusable(f'its {what} are complex numbers')
    return value


def _finiteFloats(value, what):
    """A float32 array of an array or a tensor."""
    if torch.is_tensor(value):
        value = value.detach().float().numpy()
    with np.errstate(over='ignore', invalid='ignore'):  # what becomes infinite is named below
        value = np.require(value, np.float32, 'CW')
        # a finite sum says that all are finite; where it is not, they may be so nevertheless
        if not math.isfinite(value.sum()) and not np.isfinite(value).all():
            raise _Unusable(f'its {what} hold values that are not finite')
    return value


def _sequence(value):
    """The value, if it is a sequence of a length that captions have: nested lists that stand for more than there is memory
    are not looked into."""
    if not isinstance(value, (list, tuple, np.ndarray)):
        raise _Unusable(f'a {type(value).__name__} stands where a list of captions, words or tokens is expected')
    if len(value) > MOST_WORDS:
        raise _Unusable(f'it has a caption of {len(value):,} words, or as many captions; at most {MOST_WORDS:,} are expected')
    return value


def _texts(value):
    texts = list(_sequence(value))
    if not set(map(type, texts)) <= {str}:
        strange = next((text for text in texts if not isinstance(text, str)), None)
        if strange is not None:
            raise _Unusable(f'a {type(strange).__name__} stands where a text is expected')
        texts = list(map(str, texts))  # numpy's
    return texts
