"""Batches of images, read by threads a few batches ahead of the step that learns from them."""
import collections
import functools
import math
import time
from concurrent.futures import ThreadPoolExecutor

import torch

BATCHES_AHEAD = 3
SLOW = 2e-4  # seconds per image, above which more than one thread pays


def readers(threads, seconds, files):
    """How many threads read the rest, after `files` files have taken `seconds`."""
    return threads if seconds > SLOW * files else 1


class Batch(collections.UserDict):
    """A batch as `Collate` makes it, whose texts are read when one of them is asked for.

    Args:
        at_hand: dict of what training needs.
        loader: the `ImageLoader` whose data set and `collate_fn` make the rest.
        keys: those of the data set's items.
    """

    def __init__(self, at_hand, loader, keys):
        self.at_hand = at_hand
        self.loader = loader
        self.dataset_keys = keys

    @functools.cached_property
    def data(self):
        """The whole dict."""
        at_hand, self.at_hand = self.at_hand, {}  # from now on only here, where it may be changed
        images = [self.loader.dataset[key] for key in self.dataset_keys]
        return {**self.loader.collate_fn(images), **at_hand}

    def __getitem__(self, key):
        return self.at_hand[key] if key in self.at_hand else self.data[key]

    def __contains__(self, key):
        if self.at_hand and key == 'advantages':  # every step asks for them, and no file has them
            return False
        return key in self.data

    def references(self):
        """All captions of each image, as `CaptionDataset.references` returns them."""
        return [self.loader.dataset.references(key) for key in self.dataset_keys]


class ImageLoader:
    """The batches of a `CaptionDataset`; iterating over it is one pass.

    Args:
        dataset: a `CaptionDataset`.
        collate_fn: a `Collate`.
        batch_sampler: yields lists of the data set's keys.
        threads: how many read files where a disk is slow to answer, as over a network. Files that
            come at once are read by one thread, since several would only wait for each other.
            With 0 the caller's thread reads.
    """

    def __init__(self, dataset, collate_fn, batch_sampler, threads):
        self.dataset = dataset
        self.collate_fn = collate_fn
        self.batch_sampler = batch_sampler
        self.threads = threads

    def __len__(self):
        return len(self.batch_sampler)

    def __iter__(self):
        batches = iter(self.batch_sampler)
        if self.threads == 0:
            for keys in batches:
                yield self._batch(*self._begin(keys))
            return
        begun = time.perf_counter()
        first = self._batch(*self._begin(next(batches)))
        threads = readers(self.threads, time.perf_counter() - begun, len(first['imgPaths']))
        ahead = collections.deque()
        with ThreadPoolExecutor(threads) as pool:
            for keys in batches:
                ahead.append(self._begin(keys, threads, pool.map))
                if len(ahead) == BATCHES_AHEAD:
                    yield first
                    first = self._batch(*ahead.popleft())
            yield first
            while ahead:
                yield self._batch(*ahead.popleft())

    def _begin(self, keys, threads=1, map=map):
        """What `_batch` takes, for which `map` reads a part of the files per thread."""
        # a GPU, if one is used, copies from pinned memory while it computes
        features = torch.empty(len(keys), *self.dataset.features_shape,
                               pin_memory=torch.cuda.is_initialized())
        size = math.ceil(len(keys) / threads)
        parts = [keys[start:start + size] for start in range(0, len(keys), size)]
        return keys, features, map(self._read, parts, features.split(size))

    def _read(self, keys, features):
        return list(map(self.dataset.readInto, keys, features.numpy()))

    def _batch(self, keys, features, parts):
        imgPaths, captions = zip(*sum(parts, []))
        at_hand = {'cnn_features': features, **self.collate_fn.captionTensors(captions),
                   'imgPaths': list(imgPaths)}
        return Batch(at_hand, self, keys)
