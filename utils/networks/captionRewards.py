"""How much captions of training images are worth, fast enough for every step of a training.

    reward = CIDEr-D + METEOR_SHARE · METEOR of exact words

CIDEr-D alone makes captions short and plain. Both are of tokens, the end token the last one for CIDEr-D, against all human
captions of an image.
"""
import numpy as np

from utils.data.captionWords import END, UNKNOWN
from utils.files.errors import UserError

METEOR_SHARE = 8
LONGEST = 4              # n-grams that CIDEr-D counts
SIGMA = 6                # words, the width of its penalty for another length (Vedantam et al. 2015, section 5)
ALPHA, BETA, GAMMA = 0.85, 0.2, 0.6  # METEOR's for English (Denkowski and Lavie 2014, table 3)
LARGEST_VOCABULARY = 55_000  # of which four words make one number of 64 bits


def checkVocabulary(vocabulary_size):
    """Raises a UserError where the vocabulary is too large for rewards."""
    if vocabulary_size > LARGEST_VOCABULARY:
        raise UserError(f"config['selfCriticalEpochs'] needs a vocabulary of at most {LARGEST_VOCABULARY:,} words. Set "
                        "config['vocabulary_size'] to fewer.")


def ngrams(captions, vocabulary_size):
    """All n-grams of captions.

    Args:
        captions: lists of tokens up to V.
        vocabulary_size: V, at most `LARGEST_VOCABULARY`.

    Returns:
        three integer arrays, an element for each n-gram: its caption's number, a number that it shares with equal n-grams
        alone, and n - 1.
    """
    lengths = np.array([len(caption) for caption in captions])
    tokens = np.zeros((len(captions), lengths.max(initial=0) + LONGEST), np.int64)
    for row, caption in enumerate(captions):
        tokens[row, :len(caption)] = caption
    codes, found, base = np.zeros_like(tokens), [], vocabulary_size + 2
    for n in range(1, LONGEST + 1):
        codes = codes[:, :tokens.shape[1] - n + 1] * base + tokens[:, n - 1:] + 1  # [captions, places]
        rows, places = np.nonzero(np.arange(codes.shape[1]) < (lengths - n + 1)[:, None])
        found.append((rows, codes[rows, places], np.full(len(rows), n - 1)))
    return tuple(map(np.concatenate, zip(*found)))


class CaptionRewards:
    """Rewards captions of training images.

    Args:
        codes, frequencies: integer arrays, `ngrams`' numbers of n-grams, sorted, and how many images have each in their captions.
        images: how many images these are of.
        vocabulary_size: V.
    """

    def __init__(self, codes, frequencies, images, vocabulary_size):
        self.codes = codes
        self.frequencies = frequencies
        self.images = images
        self.vocabulary_size = vocabulary_size

    def __call__(self, captions, references):
        """The rewards [B, S] of S captions of each of B images; arguments as `scores`'s."""
        cider, meteor = self.scores(captions, references)
        return cider + METEOR_SHARE * meteor

    def scores(self, captions, references):
        """Scores S captions of each of B images.

        Args:
            captions: B lists of S lists of tokens.
            references: B lists of one list of tokens or more, what people say.

        Returns:
            CIDEr-D as pycocoevalcap has it, to 10, and METEOR of exact words alone, to 1; float64 arrays [B, S]. METEOR's words
            count alike, and two matched words make one chunk where both captions have them side by side.
        """
        B, S = len(captions), len(captions[0])
        said = [caption for of_image in captions for caption in of_image]        # B·S captions
        human = [caption for of_image in references for caption in of_image]     # R captions
        image_of = np.repeat(np.arange(B), [len(of_image) for of_image in references])  # [R]
        beside = image_of[:, None] * S + np.arange(S)                            # [R, S], the captions of a human one's image

        rows, codes, orders = ngrams(said + human, self.vocabulary_size)
        known, ids = np.unique(codes, return_inverse=True)                       # the U n-grams that there are
        order_of = np.zeros(len(known), np.int64)
        order_of[ids] = orders
        keys, counts = np.unique(rows * len(known) + ids, return_counts=True)    # each caption's n-grams, once
        rows, ids = np.divmod(keys, len(known))
        slots = rows * LONGEST + order_of[ids]                                   # a place for each caption and n

        def per_caption(values):                                                 # [captions, n]
            return np.bincount(slots, values, (len(said) + len(human)) * LONGEST).reshape(-1, LONGEST)

        values = counts * self._rarity(known)[ids]
        norms = np.sqrt(per_caption(values ** 2))
        lengths = per_caption(counts)[:, 1]                                      # in bigrams, as pycocoevalcap has it

        # each n-gram of a human caption, looked for in the S captions beside it
        first = np.searchsorted(rows, len(said))
        human_rows = rows[first:] - len(said)
        wanted = beside[human_rows] * len(known) + ids[first:, None]
        places = np.searchsorted(keys[:first], wanted).clip(max=first - 1)
        theirs, sample = np.nonzero(keys[places] == wanted)
        ours, theirs_in_keys = places[theirs, sample], theirs + first
        pair_slots = (human_rows[theirs] * S + sample) * LONGEST + order_of[ids[ours]]

        def per_pair(values):                                                    # [R, S, n]
            return np.bincount(pair_slots, values, len(human) * S * LONGEST).reshape(-1, S, LONGEST)

        products = np.minimum(values[ours], values[theirs_in_keys]) * values[theirs_in_keys]
        all_norms = norms[beside] * norms[len(said):, None]
        cosines = np.divide(per_pair(products), all_norms, where=all_norms > 0, out=np.zeros_like(all_norms))
        penalty = np.exp(-(lengths[beside] - lengths[len(said):, None]) ** 2 / (2 * SIGMA ** 2))  # [R, S]
        cider = np.zeros((B, S))
        np.add.at(cider, image_of, 10 * cosines.mean(2) * penalty)
        cider /= np.bincount(image_of, minlength=B)[:, None]

        of_words = known % (self.vocabulary_size + 2) != END + 1                            # not those that end in the end token
        words = per_caption(counts * of_words[ids])[:, 0]
        common = per_pair(np.minimum(counts[ours], counts[theirs_in_keys]) * of_words[ids[ours]])
        meteor = np.zeros((B, S))
        np.maximum.at(meteor, image_of, _meteor(common[:, :, 0], common[:, :, 1], words[beside], words[len(said):, None]))
        return cider, meteor

    def _rarity(self, codes):
        """The logarithm of the images by those that have an n-gram; one that no image has counts as one that one has."""
        places = np.searchsorted(self.codes, codes).clip(max=len(self.codes) - 1)
        return np.log(self.images) - np.log(np.where(self.codes[places] == codes, self.frequencies[places], 1))


def _meteor(matches, bigrams, words, human_words):
    """METEOR from the numbers of matched words and bigrams, and of the words in both captions; arrays."""
    precision, recall = matches / np.maximum(words, 1), matches / np.maximum(human_words, 1)
    mean = precision * recall / np.maximum(ALPHA * precision + (1 - ALPHA) * recall, 1e-12)
    chunks = np.maximum(matches - bigrams, 1) / np.maximum(matches, 1)
    return mean * (1 - GAMMA * chunks ** BETA)


def learnedWords(dataset, captions):
    """The words that an image's captions are rewarded for: lists of tokens up to the end token.

    Args:
        dataset: a `CaptionDataset`.
        captions: lists of tokens, as its files have them. Unknown words become V, which no caption of the network has.
    """
    return [[dataset.vocabulary_size if token == UNKNOWN else token for token in dataset.tokensToLearn(caption)[1:]]
            for caption in captions]
