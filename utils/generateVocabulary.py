"""The vocabulary file of a data folder: made from captions, and read."""
import collections
import os

import numpy as np

from utils.data.captionWords import MARKS
from utils.data.dataFolder import SET_ROOT, vocabularyFile
from utils.files.errors import UserError, foreignFile
from utils.files.safePickle import loadPickle


def generateVocabulary(captions, minimumCount=1):
    """A vocabulary in the form of the course's `vocabulary.pickle`.

    Args:
        captions: list of word lists, without start and end marks.
        minimumCount: how often a word of the vocabulary must occur.

    Returns:
        dict of `wordCounter` (integers [V]), `sentenceLen` (integers, one per caption),
        `vocabulary` (words: the three marks, then the most frequent first), `tokens`
        (0 … V - 1), `wordToToken`, `TokenToWord`.
    """
    count = collections.Counter(word for caption in captions for word in caption)
    ranked = [word for word, number in count.most_common() if number >= minimumCount]
    words = MARKS + ranked
    tokens = np.arange(len(words))
    return {'wordCounter': np.array([count[word] for word in words]),
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
    path = vocabularyFile(data_dir)
    if not os.path.exists(path):
        raise UserError(f'{data_dir} is not a data folder: {path} is missing. {SET_ROOT}')
    with foreignFile(path, 'Copy it again from where the data came from.'):
        vocabulary = loadPickle(path)
        token_to_word = {int(token): str(word) for token, word in vocabulary['TokenToWord'].items()}
        word_to_token = {str(word): int(token) for word, token in vocabulary['wordToToken'].items()}
        if sorted(token_to_word) != list(range(len(token_to_word))):
            raise ValueError('its tokens do not run from 0 to one less than its number of words')
    words = {word.strip(): token for token, word in token_to_word.items()}
    return {**vocabulary, 'TokenToWord': token_to_word, 'wordToToken': {**words, **word_to_token}}
