"""A batch of images, and how it comes from a loader process."""
import collections
import functools
import pickle

import numpy as np
import torch


class Batch(collections.UserDict):
    """A dict of what belongs to a batch of images, which comes from a loader process at little cost.

    Only the features come in shared memory, as every tensor there costs a file and a connection. The lists, which training
    does not look at, are unpickled when one of them is asked for.

    Args:
        features: [B, D] or [B, K, D], the value of `cnn_features`.
        small: dict of what else training needs: tensors and short values.
        lists: dict of the rest, or its pickle.
    """

    def __init__(self, features, small, lists):
        self.at_hand = {'cnn_features': features, **small}
        self.lists = lists

    @functools.cached_property
    def data(self):
        """The whole dict."""
        at_hand, self.at_hand = self.at_hand, {}  # from now on it is only here, and may be changed here
        return {**at_hand, **(pickle.loads(self.lists) if isinstance(self.lists, bytes) else self.lists)}

    def __getitem__(self, key):
        return self.at_hand[key] if key in self.at_hand else self.data[key]

    def __copy__(self):
        return dict(self)

    def __reduce__(self):
        if not self.at_hand:  # it has been opened, and may have been changed
            return dict, (self.data,)
        small = {key: value.numpy() if torch.is_tensor(value) else value for key, value in self.at_hand.items()
                 if key != 'cnn_features'}
        return _arrived, (self.at_hand['cnn_features'], small, pickle.dumps(self.lists, pickle.HIGHEST_PROTOCOL))

    def pin_memory(self):
        """The batch with its tensors in pinned memory, from where GPUs copy faster; DataLoader asks for it."""
        pinned = {key: value.pin_memory() if torch.is_tensor(value) else value for key, value in self.at_hand.items()}
        return Batch(pinned.pop('cnn_features'), pinned, self.lists)


def _arrived(features, small, lists):
    return Batch(features, {key: torch.from_numpy(value) if isinstance(value, np.ndarray) else value
                            for key, value in small.items()}, lists)
