"""The rewards of sampled captions of training images, computed fast enough for every training step.

    reward = CIDEr-D + METEOR_SHARE · METEOR of exact words

CIDEr-D alone makes captions short and plain. Both compare a caption's tokens with those of all
human captions of its image; only CIDEr-D counts the end token as a word.
"""
from dataclasses import dataclass

import numpy as np

from utils.data.captionWords import END

METEOR_SHARE = 8
LONGEST = 4              # words of CIDEr-D's longest n-grams
SIGMA = 6                # words, width of its penalty for other lengths (Vedantam et al. 2015)
ALPHA, BETA, GAMMA = 0.85, 0.2, 0.6  # METEOR's for English (Denkowski and Lavie 2014, table 3)


def ngrams(captions, vocabulary_size):
    """All n-grams of captions.

    Args:
        captions: lists of tokens up to V.
        vocabulary_size: V. From 55,000 words on codes overflow 64 bits, and two n-grams might
            share one, which is very unlikely.

    Returns:
        integer array [3, number of n-grams]: each one's caption, its code, which equal n-grams
        alone share, and n - 1.
    """
    longest = max(map(len, captions))
    padded = [caption + [-1] * (longest + LONGEST - len(caption)) for caption in captions]
    tokens = np.array(padded, np.int64) + 1                              # 0 where there is none
    found, codes = [], 0
    for order in range(LONGEST):
        last = tokens[:, order:longest + order]                          # of each start's n-gram
        codes = codes * (vocabulary_size + 2) + last
        rows, starts = last.nonzero()
        found.append((rows, codes[rows, starts], np.full_like(rows, order)))
    return np.concatenate(found, axis=1)


@dataclass
class CaptionRewards:
    """Rewards captions of training images.

    Args:
        codes: integer array, the codes of the training captions' n-grams, sorted.
        frequencies: integer array, the number of images that have each in their captions.
        images: the number of training images.
        vocabulary_size: V.
    """

    codes: np.ndarray
    frequencies: np.ndarray
    images: int
    vocabulary_size: int

    def __call__(self, samples, references):
        """The rewards of captions.

        Args:
            samples: B lists of S lists of tokens.
            references: B lists of one list of tokens or more, the human captions of the same image.

        Returns:
            float64 array [B, S].
        """
        scores = map(self.scores, samples, references)
        return np.stack([cider + METEOR_SHARE * meteor for cider, meteor in scores])

    def scores(self, samples, references):
        """Two scores of S captions of one image.

        Args:
            samples: S lists of tokens.
            references: lists of tokens, the image's R human captions.

        Returns:
            float64 arrays [S]: CIDEr-D from 0 to 10 as pycocoevalcap has it, and METEOR from 0 to
            1, simplified: only exact matches count, all words weigh the same, two matched words
            are in one chunk if they are neighbours in both captions, and a caption that equals its
            reference, which METEOR gives 1, gets the penalty of one chunk.
        """
        S = len(samples)
        rows, codes, orders = ngrams([*samples, *references], self.vocabulary_size)
        known, numbers = np.unique(codes, return_inverse=True)           # the image's U n-grams
        of_order = np.zeros((len(known), LONGEST))                       # [U, n], 1 at each one's n
        of_order[numbers, orders] = 1
        counts = np.bincount(rows * len(known) + numbers,
                             minlength=(S + len(references)) * len(known))
        counts = counts.reshape(-1, len(known))                          # [captions, U]

        # log(images / images with the n-gram); an unseen n-gram counts as seen once
        places = np.searchsorted(self.codes, known).clip(max=len(self.codes) - 1)
        frequencies = np.where(self.codes[places] == known, self.frequencies[places], 1)
        values = counts * (np.log(self.images) - np.log(frequencies))    # [captions, U]
        norms = np.sqrt(values ** 2 @ of_order)                          # [captions, n]
        common = np.minimum(values[:S, None], values[S:]) * values[S:] @ of_order  # [S, R, n]
        norms = norms[:S, None] * norms[S:]
        cosines = np.divide(common, norms, where=norms > 0, out=np.zeros_like(norms))
        lengths = (counts @ of_order)[:, 1]                              # bigrams, as pycocoevalcap
        penalty = np.exp(-(lengths[:S, None] - lengths[S:]) ** 2 / (2 * SIGMA ** 2))
        cider = (10 * cosines.mean(2) * penalty).mean(1)                 # [S]

        counts[:, known % (self.vocabulary_size + 2) == END + 1] = 0     # no end tokens
        words = (counts @ of_order)[:, 0]
        common = np.minimum(counts[:S, None], counts[S:]) @ of_order     # [S, R, n]
        matches, bigrams = common[:, :, 0], common[:, :, 1]
        precision = matches / np.maximum(words[:S, None], 1)
        recall = matches / np.maximum(words[S:], 1)
        mean = precision * recall / np.maximum(ALPHA * precision + (1 - ALPHA) * recall, 1e-12)
        chunks = np.maximum(matches - bigrams, 1) / np.maximum(matches, 1)
        meteor = mean * (1 - GAMMA * chunks ** BETA)                     # [S, R]
        return cider, meteor.max(1)
