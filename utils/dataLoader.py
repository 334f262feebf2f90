"""Batches of image features and captions, from one pickle per image."""
import math
import os

import torch

from utils.data.captionDataset import CaptionDataset, Collate, EpochSampler
from utils.data.dataFolder import featureFiles, imageFile
from utils.data.pictures import openPicture
from utils.data.survey import FileFaults, ImageSums
from utils.files.errors import UserError
from utils.generateVocabulary import END, START, loadVocabulary
from utils.processes.distributed import ShareOfBatches, isMain, localWorldSize
from utils.processes.loaderProcesses import FileLoader, availableCores, sharedMemory
from utils.processes.progress import progressBar

DETECTIONS = 10
FAULTS_NAMED = 3       # of many unusable files
BATCHES_IN_FLIGHT = 4  # of a loader process in shared memory: two waiting, one in the making, one in use


class DataLoaderWrapper:
    """The loaders of the modes in `modelParam['modeSetups']`: `myDataDicts['train']` and `myDataDicts['val']`.

    Attributes:
        config: the configuration with `vocabulary_size` no larger than the vocabulary, so that no token is without a word.
        vocabulary: dict as `loadVocabulary` returns it.

    Raises:
        UserError: something that the task needs is missing in the data folder, or unusable.
    """

    def __init__(self, config, modelParam):
        self.modelParam = modelParam
        self.vocabulary = loadVocabulary(modelParam['data_dir'])
        token_to_word = self.vocabulary['TokenToWord']
        self.config = {**config, 'vocabulary_size': min(config['vocabulary_size'], len(token_to_word))}
        empty_tokens = frozenset(token for token, word in token_to_word.items() if not word.strip())
        self.myDataDicts = {}
        for mode, _ in modelParam['modeSetups']:
            paths = featureFiles(modelParam['data_dir'], mode, config['featurepathstub'])
            pooled = config['featurepathstub'] == 'detectron2_lim10maxfeatures'
            shape = ([] if pooled else [DETECTIONS]) + [config['number_of_cnn_features']]
            dataset = CaptionDataset(paths, shape, self.config['vocabulary_size'], empty_tokens, config['seed'])
            if isMain():
                self._checkFiles(dataset)
            self.myDataDicts[mode] = self._loader(
                dataset, Collate(config['truncated_backprop_length']), persistent_workers=True,
                sampler=EpochSampler(len(dataset), config['seed']) if mode == 'train' else None,
                pin_memory=torch.cuda.is_available())

    def _loader(self, dataset, collate, sampler=None, persistent_workers=False, **options):
        batch_size = self.modelParam['batch_size']
        batches = {'batch_sampler': ShareOfBatches(sampler, batch_size, drop_last=False)} if sampler else {'batch_size': batch_size}
        batch_bytes = 4 * batch_size * math.prod(dataset.features_shape)
        workers = min(self.modelParam['numbOfCPUThreadsUsed'], availableCores() // localWorldSize(), -(-len(dataset) // batch_size),
                      sharedMemory() // (BATCHES_IN_FLIGHT * batch_bytes))
        return FileLoader(dataset, **batches, collate_fn=collate, num_workers=workers,
                          persistent_workers=persistent_workers and workers > 0, **options,
                          generator=torch.Generator())  # its own, so that loading never moves the global one

    def _checkFiles(self, dataset):
        """Reads every file once, which also brings it into the page cache before the first epoch."""
        loader = self._loader(FileFaults(dataset), list)
        faults = [fault for batch in progressBar(loader, 'checking files', self.modelParam) for fault in batch if fault]
        if faults:
            raise UserError(f'{len(faults):,} of the {len(dataset):,} feature files in {os.path.dirname(dataset.paths[0])} '
                            'cannot be used:\n' + '\n'.join(faults[:FAULTS_NAMED]) + '\n…' * (len(faults) > FAULTS_NAMED))

    def trainingStatistics(self):
        """The mean of the training images' features [D], over detections too, and how often each token is to be learned in
        all of their captions [V]; float64 and integers."""
        sums = ImageSums(self.myDataDicts['train'].dataset)
        batches = progressBar(self._loader(sums, sums.ofBatch), 'statistics', self.modelParam)
        features, counts = (sum(batch) for batch in zip(*batches))
        return features / len(sums), counts

    def imageFile(self, mode, imgPath):
        """The path of an image; the file may be missing."""
        return imageFile(self.modelParam['data_dir'], mode, imgPath)

    def picture(self, mode, imgPath):
        """An image as a PIL picture in RGB; None where its file is missing or broken."""
        return openPicture(self.modelParam['data_dir'], mode, imgPath)

    def wordPositions(self, tokens):
        """Where a predicted caption has words: the positions before its end token, less those that mark or say nothing."""
        end = tokens.index(END) if END in tokens else len(tokens)
        return [position for position in range(end)
                if tokens[position] != START and self.vocabulary['TokenToWord'][tokens[position]].strip()]

    def wordsOf(self, tokens):
        """The caption that predicted tokens spell: a string of words up to the end token."""
        return ' '.join(self.vocabulary['TokenToWord'][tokens[position]].strip() for position in self.wordPositions(tokens))
