"""The images of a feature folder as a data set: which caption is learned, in what order."""
import contextlib
import os
import random
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.data.captionWords import END, START, UNKNOWN, beforeEnd
from utils.data.imageFiles import loadImage, readRaw


@dataclass
class CaptionDataset(Dataset):
    """The images of one feature folder, in order of their file names.

    `dataset[index]` is an image with its first caption. `dataset[index, epoch, learned]` has the
    caption that (seed, epoch, file name) alone choose, or no words to learn where `learned` is
    False.

    Args:
        paths: the feature files.
        features_shape: list, [D] or [K, D].
        vocabulary_size: V; larger tokens become `UNK`.
        empty_tokens: the tokens of words of white space only, which are left out of captions.
        seed: integer.

    Attributes:
        checked: None before `checkFiles`. Then for each file a tuple of its size in bytes, time of
            the last change in ns, offset of the raw features or -1, imgPath, and its captions'
            tokens, a line of text each. With it features are read without unpickling, and
            captions without opening files.
    """

    paths: list
    features_shape: list
    vocabulary_size: int
    empty_tokens: frozenset
    seed: int
    checked: list = None

    def __post_init__(self):
        self.names = [os.path.basename(path) for path in self.paths]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, key):
        image = self.load(key)
        image['drawn'], image['tokens'] = self.drawn(key, image['captionsAsTokens'])
        return image

    def load(self, key):
        """What the image's file holds, as `loadImage` returns it."""
        return loadImage(self.paths[fullKey(key)[0]], self.features_shape)[0]

    def captions(self, key):
        """A list of an image's captions, as `tokensToLearn` takes them."""
        if self.checked is None:
            return self.load(key)['captionsAsTokens']
        return self.checked[fullKey(key)[0]][-1].split('\n')

    def references(self, key):
        """What samples of an image are compared with: its captions' tokens up to the end token,
        with V for unknown words, which no sample has."""
        return [[self.vocabulary_size if token == UNKNOWN else token
                 for token in self.tokensToLearn(caption)[1:]] for caption in self.captions(key)]

    def readInto(self, key, features):
        """Reads an image's features into a float32 array of their shape.

        Returns:
            its imgPath, and the tokens to learn.
        """
        if self.checked is not None:
            index = fullKey(key)[0]
            *stamp, imgPath, captions = self.checked[index]
            with contextlib.suppress(OSError):  # which `load` says in a sentence
                if readRaw(self.paths[index], stamp, features):
                    return imgPath, self.drawn(key, captions.split('\n'))[1]
        image = self[key]
        features[:] = image['cnn_features']
        return image['imgPath'], image['tokens']

    def drawn(self, key, captions):
        """The number of the caption that is learned, the first without an epoch, and its tokens to
        learn; `captions` are all of the image's, as `tokensToLearn` takes them."""
        index, epoch, learned = fullKey(key)
        number = 0
        if epoch is not None:
            seed = os.fsencode(f'{self.seed} {epoch} {self.names[index]}')
            number = random.Random(seed).randrange(len(captions))
        return number, self.tokensToLearn(captions[number]) if learned else [START]

    def tokensToLearn(self, caption):
        """The list of a caption's tokens, a list or a line of text, with `UNK` for large ones,
        without empty words, with an end token."""
        if isinstance(caption, str):
            caption = map(int, caption.split())
        tokens = [token if token < self.vocabulary_size else UNKNOWN
                  for token in caption if token not in self.empty_tokens]
        return [*beforeEnd(tokens), END]


def fullKey(key):
    """The tuple (index, epoch, learned) of a key of a `CaptionDataset`."""
    return key if isinstance(key, tuple) else (key, None, True)


@dataclass
class Collate:
    """Makes a batch of items, the captions in parts of at most `truncated_backprop_length` steps.

    A batch is a dict of `cnn_features` [B, D] or [B, K, D]; `xTokens`, `yTokens`, `yWeights` and
    `numbOfTruncatedSequences` as `captionTensors` makes them; of each image's drawn caption
    `captions` (its words) and `captionsAsTokens`; of all its captions `orig_captions` (texts),
    `allcaptions` and `allcaptionsAsTokens`; `imgPaths`; and `boxes` where files have them. None
    of these lists is cut or cleaned.
    """

    truncated_backprop_length: int

    def __call__(self, images):
        batch = {'cnn_features': torch.stack([image['cnn_features'] for image in images]),
                 **self.captionTensors([image['tokens'] for image in images]),
                 'imgPaths': [image['imgPath'] for image in images],
                 'orig_captions': [image['original_captions'] for image in images]}
        for key in ('captions', 'captionsAsTokens'):
            batch[key] = [image[key][image['drawn']] for image in images]
            batch[f'all{key}'] = [image[key] for image in images]
        if any('boxes' in image for image in images):
            batch['boxes'] = [image.get('boxes') for image in images]    # each [10, 4] or None
        return batch

    def captionTensors(self, captions):
        """xTokens, yTokens, yWeights [B, T, N], N = numbOfTruncatedSequences.

        T is the longest caption's number of steps, or truncated_backprop_length where that is
        less. yTokens are xTokens one step later; yWeights are 1 where yTokens has a word or an
        end, 0 where it is padded.

        Args:
            captions: B lists of tokens, start to end.
        """
        longest = max(2, *map(len, captions)) - 1                # a start token alone has no step
        T = min(longest, self.truncated_backprop_length)
        N = (longest + T - 1) // T
        lengths = np.array([[len(caption)] for caption in captions])              # [B, 1]
        is_token = np.arange(N * T + 1) < lengths                                 # [B, N·T + 1]
        tokens = np.full(is_token.shape, END)
        tokens[is_token] = np.concatenate(captions)

        def parts(rows):                     # [B, N·T] to [B, T, N], each part in one piece
            parts_first = torch.from_numpy(rows).reshape(-1, N, T).transpose(0, 1).contiguous()
            return parts_first.permute(1, 2, 0)

        return {'xTokens': parts(tokens[:, :-1]), 'yTokens': parts(tokens[:, 1:]),
                'yWeights': parts(is_token[:, 1:].astype(np.float32)),
                'numbOfTruncatedSequences': N}
