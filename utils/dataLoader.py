"""Batches of image features and captions, from one pickle per image."""
import numpy as np
import torch
from torch.utils.data import BatchSampler

from utils.data.captionDataset import CaptionDataset, Collate
from utils.data.dataFolder import POOLED, featureFiles
from utils.data.imageFiles import checkFiles, shapeOfFeatures
from utils.data.imageLoader import ImageLoader
from utils.generateVocabulary import loadVocabulary
from utils.networks.captionRewards import CaptionRewards, ngrams
from utils.processes.distributed import ShareOfBatches, mainFirst
from utils.processes.progress import progressBar
from utils.scripts.settings import withDefaults


class DataLoaderWrapper:
    """The loaders of `modelParam['modeSetups']`: `myDataDicts['train']` and `myDataDicts['val']`.

    Attributes:
        config: the configuration with `vocabulary_size` no larger than the vocabulary, so that
            every token has a word, and with the sizes of the files' features as
            `number_of_cnn_features` and, where they are not pooled, `numberOfRegions`.
        vocabulary: dict as `loadVocabulary` returns it.

    Raises:
        UserError: there is no usable vocabulary, or no files of the features that the task needs.
    """

    def __init__(self, config, modelParam):
        self.modelParam = modelParam
        self.vocabulary = loadVocabulary(modelParam['data_dir'])
        words = self.vocabulary['TokenToWord']
        config = withDefaults(config)
        paths = {mode: featureFiles(modelParam['data_dir'], mode, config['featurepathstub'])
                 for mode, _ in modelParam['modeSetups']}
        sizes = ['numberOfRegions', 'number_of_cnn_features']
        if config['featurepathstub'] == POOLED:
            del sizes[0]
        shape = shapeOfFeatures(next(iter(paths.values())),
                                [config[size] for size in sizes])                # [D] or [K, D]
        self.config = {**config, **dict(zip(sizes, shape)),
                       'vocabulary_size': min(config['vocabulary_size'], len(words))}
        empty_tokens = frozenset(token for token, word in words.items() if not word.strip())
        collate = Collate(config['truncated_backprop_length'])
        batch_size = modelParam['batch_size']
        self.myDataDicts = {}
        for mode in paths:
            dataset = CaptionDataset(paths[mode], shape, self.config['vocabulary_size'],
                                     empty_tokens, config['seed'])
            if mode == 'train':
                batches = ShareOfBatches(len(dataset), batch_size, config['seed'])
            else:
                batches = BatchSampler(range(len(dataset)), batch_size, drop_last=False)
            self.myDataDicts[mode] = ImageLoader(dataset, collate, batches,
                                                 modelParam['numbOfCPUThreadsUsed'])

    def checkFiles(self):
        """Reads every file that is new or has changed since the last check, of any run.

        Raises:
            UserError: files cannot be used; it says how many and names some.
        """
        with mainFirst():  # the other processes read what it has found
            for loader in self.myDataDicts.values():
                checkFiles(loader.dataset, self.modelParam)

    def trainingStatistics(self):
        """Statistics of the training data.

        Returns:
            the mean of the images' features [D], over detections too, float64; how often each
            token is a target, over all captions, integers [V].
        """
        loader = self.myDataDicts['train']
        dataset = loader.dataset
        in_order = BatchSampler(range(len(dataset)), self.modelParam['batch_size'], drop_last=False)
        batches = ImageLoader(dataset, loader.collate_fn, in_order, loader.threads)
        sums = 0
        for batch in progressBar(batches, 'statistics', self.modelParam):
            sums += sum(torch.atleast_2d(image).double().mean(0) for image in batch['cnn_features'])
        words = [token for index in range(len(dataset)) for caption in dataset.captions(index)
                 for token in dataset.tokensToLearn(caption)[1:]]
        counts = torch.bincount(torch.tensor(words), minlength=dataset.vocabulary_size)
        return sums / len(dataset), counts

    def captionRewards(self):
        """The `CaptionRewards` by the training images' captions."""
        dataset = self.myDataDicts['train'].dataset
        # the n-grams in each image's captions, once
        of_images = [np.unique(ngrams(dataset.references(index), dataset.vocabulary_size)[1])
                     for index in progressBar(range(len(dataset)), 'n-grams', self.modelParam)]
        codes, frequencies = np.unique(np.concatenate(of_images), return_counts=True)
        return CaptionRewards(codes, frequencies, len(dataset), dataset.vocabulary_size)
