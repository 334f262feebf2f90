"""Reading one image's file: its features and captions."""
import numpy as np
import torch

from utils.files.errors import UserError
from utils.files.safePickle import loadPickle
from utils.generateVocabulary import START

CAPTION_KEYS = ('original_captions', 'captions', 'captionsAsTokens')


def loadImage(path, shape):
    """One image's file.

    Args:
        path: the file's.
        shape: list, [D] or [10, D], which its features must have.

    Returns:
        dict of `cnn_features` (float32 tensor of that shape), `imgPath`, `original_captions` (list of str), `captions`
        (list of word lists), `captionsAsTokens` (list of token lists, plain integers), and `boxes` where the file has them
        (float32 [10, 4], x1 y1 x2 y2 in pixels).

    Raises:
        UserError: the file cannot be read, is broken, lacks a key, its features or boxes have another shape or are not
            finite, or a caption has no start or impossible tokens.
    """
    def fault(what):
        return UserError(f'The feature file {path} cannot be used: {what}. Copy it again from where the data came from.')

    try:
        image = loadPickle(path)
        features = image['cnn_features']
        features = features if torch.is_tensor(features) else torch.from_numpy(np.array(features))
        if features.is_complex():
            raise TypeError('the features are complex numbers')
        image = {**image, 'cnn_features': features.float(), 'imgPath': str(image['imgPath']),
                 'original_captions': [str(caption) for caption in image['original_captions']],
                 'captionsAsTokens': [[int(token) for token in caption] for caption in image['captionsAsTokens']]}
        if 'boxes' in image:
            image['boxes'] = np.asarray(image['boxes'], dtype=np.float32).reshape(-1, 4)
        captions = {len(image[key]) for key in CAPTION_KEYS}
    except KeyError as error:
        raise fault(f'it has no {error}') from None
    except OSError as error:
        raise UserError(f'The feature file {path} cannot be read: {error.strerror}.') from None
    except Exception as error:
        raise fault(f'{type(error).__name__}: {error}') from error
    if list(features.shape) != shape:
        raise fault(f'its features have the shape {list(features.shape)}, not {shape}')
    if not torch.isfinite(image['cnn_features']).all():
        raise fault('its features hold values that are not finite')
    if not np.isfinite(image.get('boxes', 0)).all():
        raise fault('its boxes hold values that are not finite')
    if captions == {0} or len(captions) != 1:
        raise fault(f'its lists {", ".join(CAPTION_KEYS)} are empty or of different lengths')
    if any(caption[:1] != [START] or min(caption) < 0 for caption in image['captionsAsTokens']):
        raise fault(f'a caption of captionsAsTokens does not begin with the start token {START}, or has one below 0')
    return image
