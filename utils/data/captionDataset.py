"""The images of a feature folder as a data set: which caption is learned, in which order, in what batches."""
import os
import random

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler
from torch.utils.data.dataloader import default_collate

from utils.data.batch import Batch
from utils.data.captionWords import END, START, UNKNOWN
from utils.data.imageFiles import loadImage


class CaptionDataset(Dataset):
    """The images of one feature folder, in order of their file names.

    An item is asked for by its index alone, and comes with its first caption, or by (index, epoch, learned), and comes with
    one of its captions drawn from (seed, epoch, file name) alone, whichever process reads it; without words to learn where
    learned is False.

    Args:
        paths: the feature files.
        features_shape: list, [D] or [K, D].
        vocabulary_size: V; larger tokens become `UNK`.
        empty_tokens: the tokens of words without a letter, which captions are freed of.
        seed: integer.
    """

    def __init__(self, paths, features_shape, vocabulary_size, empty_tokens, seed):
        self.paths = paths
        self.features_shape = features_shape
        self.vocabulary_size = vocabulary_size
        self.empty_tokens = empty_tokens
        self.seed = seed

    def __len__(self):
        return len(self.paths)

    def load(self, index):
        """The image's file, as `loadImage` returns it."""
        return loadImage(self.paths[index], self.features_shape)

    def __getitem__(self, key):
        index, epoch, learned = key if isinstance(key, tuple) else (key, None, True)
        image = self.load(index)
        number = 0
        if epoch is not None:
            draw = random.Random(f'{self.seed} {epoch} {os.path.basename(self.paths[index])}')
            number = draw.randrange(len(image['captions']))
        image['drawn'] = number
        image['tokens'] = self.tokensToLearn(image['captionsAsTokens'][number]) if learned else [START]
        return image

    def tokensToLearn(self, caption):
        """A caption's tokens from the start to the end token, the end put back where the file lacks it."""
        tokens = [token if token < self.vocabulary_size else UNKNOWN
                  for token in caption if token not in self.empty_tokens]
        return tokens + [END] * (tokens[-1:] != [END])


class EpochSampler(Sampler):
    """Every index of a data set once, in an order that (seed, epoch) alone decides; yields (index, epoch)."""

    def __init__(self, length, seed):
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch):
        """Chooses the order of the next pass."""
        self.epoch = epoch

    def __len__(self):
        return self.length

    def __iter__(self):
        order = list(range(self.length))
        random.Random(f'{self.seed} {self.epoch}').shuffle(order)
        return ((index, self.epoch) for index in order)


class Collate:
    """Makes a batch of items, the captions in truncated parts of at most `truncated_backprop_length` steps.

    A `Batch` is a dict of `cnn_features` [B, D] or [B, K, D]; `xTokens`, `yTokens`, `yWeights` and `numbOfTruncatedSequences` as
    `captionTensors` makes them; of the drawn caption of each image `captions` (its words) and `captionsAsTokens`; of all
    captions of each image `orig_captions` (texts), `allcaptions` and `allcaptionsAsTokens`; `imgPaths`; and `boxes` where
    files have them. None of these lists is cut or cleaned.
    """

    def __init__(self, truncated_backprop_length):
        self.truncated_backprop_length = truncated_backprop_length

    def __call__(self, images):
        # [B, D] or [B, K, D], in a loader process at once in the memory that it shares
        features = default_collate([image['cnn_features'] for image in images])
        small = {**self.captionTensors([image['tokens'] for image in images]), 'imgPaths': [image['imgPath'] for image in images]}
        lists = {'orig_captions': [image['original_captions'] for image in images],
                 'captions': [image['captions'][image['drawn']] for image in images],
                 'captionsAsTokens': [image['captionsAsTokens'][image['drawn']] for image in images],
                 'allcaptions': [image['captions'] for image in images],
                 'allcaptionsAsTokens': [image['captionsAsTokens'] for image in images]}
        if any('boxes' in image for image in images):
            lists['boxes'] = [image.get('boxes') for image in images]             # each [10, 4] or None
        return Batch(features, small, lists)

    def captionTensors(self, captions):
        """xTokens, yTokens, yWeights [B, T, N], N = numbOfTruncatedSequences, from B lists of tokens, start to end.

        T is the longest caption's number of steps, or truncated_backprop_length where that is less. yTokens are xTokens one
        step later; yWeights are 1 where yTokens has a word or an end, 0 where it is padded.
        """
        longest = max(2, *map(len, captions)) - 1                                # a start token alone has no step
        T = min(longest, self.truncated_backprop_length)
        N = -(-longest // T)
        tokens = np.full((len(captions), N * T + 1), END, np.int64)              # filled by numpy, which is faster at it
        weights = np.zeros((len(captions), N * T), np.float32)
        for row, caption in enumerate(captions):
            tokens[row, :len(caption)] = caption
            weights[row, :len(caption) - 1] = 1

        def parts(rows):                                                         # [B, N·T] to [B, T, N], each part in one piece
            return torch.from_numpy(rows).reshape(-1, N, T).transpose(0, 1).contiguous().permute(1, 2, 0)

        return {'xTokens': parts(tokens[:, :-1]), 'yTokens': parts(tokens[:, 1:]), 'yWeights': parts(weights),
                'numbOfTruncatedSequences': N}
