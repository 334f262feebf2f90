"""The vocabulary file of a data folder: made from captions, and read."""
import collections
import os

import numpy as np

from utils.data.captionWords import MARKS
from utils.files.errors import UserError
from utils.files.safePickle import loadPickle


def generateVocabulary(captions, minimumCount=1):
    """A vocabulary in the form of the course's `vocabulary.pickle`.

    Args:
        captions: list of word lists, without start and end marks.
        minimumCount: how often a word must be there to be one of the vocabulary's.

    Returns:
        dict of `wordCounter` (integers [V]), `sentenceLen` (integers, one per caption),
        `vocabulary` (words: the three marks, then the most frequent first), `tokens`
        (0 … V - 1), `wordToToken`, `TokenToWord`.
    """
    count = collections.Counter(word for caption in captions for word in caption)
    ranked = [word for word, number in count.most_common() if number >= minimumCount]
    words = MARKS + ranked
    tokens = np.arange(len(words))
    return {'wordCounter': np.array([0] * len(MARKS) + [count[word] for word in ranked]),
            'sentenceLen': np.array([len(caption) for caption in captions]),
            'vocabulary': words, 'tokens': tokens,
            'wordToToken': dict(zip(words, tokens)), 'TokenToWord': dict(zip(tokens, words))}


def loadVocabulary(data_dir):
    """The vocabulary of a data folder.

    Returns:
        dict as in the file, with plain integers in `wordToToken` and `TokenToWord`.

    Raises:
        UserError: the file is missing, broken, or its tokens are not 0 … V - 1.
    """
    path = os.path.join(data_dir, 'vocabulary', 'vocabulary.pickle')
    try:
        vocabulary = loadPickle(path)
        token_to_word = {int(token): str(word)
                         for token, word in vocabulary['TokenToWord'].items()}
        word_to_token = {str(word): int(token)
                         for word, token in vocabulary['wordToToken'].items()}
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f'There is no vocabulary file {path}. Set DATA_ROOT in utils/dataRoot.py '
                        'to the folder that holds "vocabulary" and the feature folders; '
                        'utils/buildCourseLayout.py makes one of COCO as it is published.'
                        ) from None
    except Exception as error:
        raise UserError(f'The vocabulary file {path} cannot be read: {type(error).__name__}: '
                        f'{error}. Copy it again from where the data came from.') from error
    size = len(token_to_word)
    if sorted(token_to_word) != list(range(size)):
        raise UserError(f'The vocabulary file {path} has {size} words, but their tokens do not '
                        f'run from 0 to {size - 1}. Copy it again from where the data came from.')
    words = {word.strip(): token for token, word in token_to_word.items()}
    return {**vocabulary, 'TokenToWord': token_to_word, 'wordToToken': {**words, **word_to_token}}
