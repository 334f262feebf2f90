"""A pass over all files of a data set: which cannot be used, and what is summed over them."""
import functools
import json
import os

import numpy as np
import torch
from torch.utils.data import Dataset

from utils.data.imageLoader import imageLoader
from utils.files.atomic import readJson, writeAtomically
from utils.files.errors import UserError
from utils.networks.captionRewards import CaptionRewards, learnedWords, ngrams
from utils.processes.progress import progressBar

FAULTS_NAMED = 3          # of many unusable files
FILES_PER_PROCESS = 2000  # with fewer, a further process is not worth its start
CHECK = 1                 # to be raised when `loadImage` begins to refuse what it read before


class AnswerPerFile(Dataset):
    """What a function says of some files of a `CaptionDataset`, from the data set and the file's index."""

    def __init__(self, function, dataset, indices):
        self.function = function
        self.dataset = dataset
        self.indices = indices

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, position):
        return self.function(self.dataset, self.indices[position])


def _answers(function, dataset, indices, collate, description, modelParam):
    loader = imageLoader(AnswerPerFile(function, dataset, indices), collate, modelParam, bytes_of_image=0,
                         images_per_process=FILES_PER_PROCESS)
    return progressBar(loader, description, modelParam)


def _fault(dataset, index):
    """What is wrong with a file, as a sentence; '' where nothing is."""
    try:
        dataset.load(index)
        return ''
    except UserError as error:
        return str(error)


def checkFiles(dataset, modelParam, memory):
    """Reads every file once that is new or has changed since the last check, which also brings it into the page cache.

    Args:
        dataset: a `CaptionDataset`.
        modelParam: dict.
        memory: the path of the file that keeps what has been checked; whatever is wrong with it only costs a new check.

    Raises:
        UserError: files cannot be used; it says how many and names some.
    """
    folder = os.path.dirname(dataset.paths[0])
    stamps = {os.path.basename(path): _stamp(path) for path in dataset.paths}
    right = _remembered(memory, folder, dataset.features_shape)
    if right == stamps:
        return
    unknown = [index for index, (name, stamp) in enumerate(stamps.items()) if right.get(name) != stamp]
    faults = dict(zip(unknown, sum(_answers(_fault, dataset, unknown, list, 'checking files', modelParam), [])))
    _remember(memory, folder, dataset.features_shape, {
        name: stamp for index, (name, stamp) in enumerate(stamps.items()) if not faults.get(index)})
    said = [fault for fault in faults.values() if fault]
    if said:
        raise UserError(f'{len(said):,} of the {len(dataset):,} feature files in {folder} cannot be used:\n'
                        + '\n'.join(said[:FAULTS_NAMED]) + '\n…' * (len(said) > FAULTS_NAMED))


def _stamp(path):
    """What changes with a file: its size and time; None where it cannot be looked at."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]


def _remembered(memory, folder, shape):
    """Dict file name → stamp of the files of a folder that were found to be right."""
    try:
        kept = readJson(memory, {})
    except (UserError, OSError):
        return {}
    this = {'check': CHECK, 'folder': folder, 'shape': shape}
    if not isinstance(kept, dict) or any(kept.get(key) != value for key, value in this.items()):
        return {}
    return kept['files'] if isinstance(kept.get('files'), dict) else {}


def _remember(memory, folder, shape, files):
    kept = {'check': CHECK, 'folder': folder, 'shape': shape, 'files': files}
    writeAtomically(memory, json.dumps(kept, separators=(',', ':')).encode(), outlive_power_failure=False)


def _sums(dataset, index):
    """An image's mean features [D], and the words to learn of all its captions."""
    image = dataset.load(index)
    words = [token for caption in image['captionsAsTokens'] for token in dataset.tokensToLearn(caption)[1:]]
    return image['cnn_features'].reshape(-1, dataset.features_shape[-1]).double().mean(0), words


def _summed(images, vocabulary_size):
    """The sum of some images' features [D], and how often each token is to be learned [V]."""
    features, words = zip(*images)
    return sum(features), torch.bincount(torch.tensor(sum(words, [])), minlength=vocabulary_size)


def trainingStatistics(dataset, modelParam):
    """The mean of the images' features [D], over detections too, and how often each token is to be learned in all of their
    captions [V]; float64 and integers."""
    collate = functools.partial(_summed, vocabulary_size=dataset.vocabulary_size)
    batches = _answers(_sums, dataset, range(len(dataset)), collate, 'statistics', modelParam)
    features, counts = (sum(batch) for batch in zip(*batches))
    return features / len(dataset), counts


def _ngramsOf(dataset, index):
    """The numbers of the n-grams in an image's captions, each once."""
    captions = learnedWords(dataset, dataset.load(index)['captionsAsTokens'])
    return np.unique(ngrams(captions, dataset.vocabulary_size)[1])


def _counted(images):
    """Which n-grams some images have, and how many of them have each."""
    return np.unique(np.concatenate(images), return_counts=True)


def captionRewards(dataset, modelParam):
    """The `CaptionRewards` by the captions of all images."""
    batches = list(_answers(_ngramsOf, dataset, range(len(dataset)), _counted, 'n-grams', modelParam))
    codes, counts = map(np.concatenate, zip(*batches))
    codes, places = np.unique(codes, return_inverse=True)
    return CaptionRewards(codes, np.bincount(places, counts), len(dataset), dataset.vocabulary_size)
