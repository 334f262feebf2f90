"""What a pass over all files of a data set finds out: faults, statistics."""
import torch
from torch.utils.data import Dataset

from utils.files.errors import UserError


class OfEachFile(Dataset):
    """What a subclass finds out about each file of a `CaptionDataset`."""

    def __init__(self, dataset):
        self.dataset = dataset
        self.features_shape = dataset.features_shape

    def __len__(self):
        return len(self.dataset)


class FileFaults(OfEachFile):
    """What is wrong with each file, as a sentence; '' where nothing is."""

    def __getitem__(self, index):
        try:
            self.dataset.load(index)
            return ''
        except UserError as error:
            return str(error)


class ImageSums(OfEachFile):
    """What the statistics of all images are summed from: each one's mean features [D] and all its captions' words."""

    def __getitem__(self, index):
        image = self.dataset.load(index)
        words = [token for caption in image['captionsAsTokens'] for token in self.dataset.tokensToLearn(caption)[1:]]
        return image['cnn_features'].reshape(-1, self.features_shape[-1]).double().mean(0), words

    def ofBatch(self, images):
        """The sum of the images' features [D], and how often each token is to be learned [V]."""
        features, words = zip(*images)
        return sum(features), torch.bincount(torch.tensor(sum(words, [])), minlength=self.dataset.vocabulary_size)
