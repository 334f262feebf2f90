"""Batches of image features and captions, from one pickle per image."""
import os

import torch

from utils.data import survey
from utils.data.captionDataset import CaptionDataset, Collate, EpochSampler
from utils.data.captionWords import captionOf, wordPositions
from utils.data.dataFolder import POOLED, featureFiles, imageFile
from utils.data.imageFiles import shapeOfFeatures
from utils.data.imageLoader import bytesOfFeatures, imageLoader
from utils.data.pictures import openPicture
from utils.files.defaults import withDefaults
from utils.files.project import runFolder
from utils.generateVocabulary import loadVocabulary
from utils.processes.distributed import ShareOfBatches, isMain

CHECKED_FILES = 'checkedFiles_{}.json'  # in a run's folder, of each mode


class DataLoaderWrapper:
    """The loaders of the modes in `modelParam['modeSetups']`: `myDataDicts['train']` and `myDataDicts['val']`.

    Attributes:
        config: the configuration with `vocabulary_size` no larger than the vocabulary, so that no token is without a word, and
            with the sizes of the files' features as `number_of_cnn_features` and, where they are not pooled, `numberOfRegions`.
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
        sizes = [*['numberOfRegions'] * (config['featurepathstub'] != POOLED), 'number_of_cnn_features']
        shape = shapeOfFeatures(next(iter(paths.values())), [config[size] for size in sizes])  # [D] or [K, D]
        self.config = {**config, **dict(zip(sizes, shape)), 'vocabulary_size': min(config['vocabulary_size'], len(words))}
        empty_tokens = frozenset(token for token, word in words.items() if not word.strip())
        collate = Collate(config['truncated_backprop_length'])
        self.myDataDicts = {}
        for mode in paths:
            dataset = CaptionDataset(paths[mode], shape, self.config['vocabulary_size'], empty_tokens, config['seed'])
            batches = ShareOfBatches(EpochSampler(len(dataset), config['seed']), modelParam['batch_size'], drop_last=False)
            self.myDataDicts[mode] = imageLoader(
                dataset, collate, modelParam, bytesOfFeatures(shape), batches=batches if mode == 'train' else None,
                keep_processes=True, pin_memory=torch.cuda.is_available())

    def checkFiles(self):
        """Reads every file that is new or has changed since the last check of this run's data.

        Raises:
            UserError: files cannot be used; it says how many and names some.
        """
        if isMain():
            for mode, loader in self.myDataDicts.items():
                memory = os.path.join(runFolder(self.modelParam), CHECKED_FILES.format(mode))
                survey.checkFiles(loader.dataset, self.modelParam, memory)

    def trainingStatistics(self):
        """The mean of the training images' features [D], over detections too, and how often each token is to be learned in
        all of their captions [V]; float64 and integers."""
        return survey.trainingStatistics(self.myDataDicts['train'].dataset, self.modelParam)

    def captionRewards(self):
        """The `CaptionRewards` by the training images' captions."""
        return survey.captionRewards(self.myDataDicts['train'].dataset, self.modelParam)

    def imageFile(self, mode, imgPath):
        """The path of an image; the file may be missing."""
        return imageFile(self.modelParam['data_dir'], mode, imgPath)

    def picture(self, mode, imgPath):
        """An image as a PIL picture in RGB; None where its file is missing or broken."""
        return openPicture(self.modelParam['data_dir'], mode, imgPath)

    def wordPositions(self, tokens):
        """As `captionWords.wordPositions`, of this vocabulary."""
        return wordPositions(self.vocabulary, tokens)

    def wordsOf(self, tokens):
        """As `captionWords.captionOf`, of this vocabulary."""
        return captionOf(self.vocabulary, tokens)
