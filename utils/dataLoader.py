"""Batches of image features and captions, from one pickle per image."""
import gc
import math
import os
import random
import shutil
import signal
import sys

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm.auto import tqdm

from utils.dataFolder import featureFiles, imageFile, openPicture
from utils.distributed import ShareOfBatches, isMain, localWorldSize
from utils.files import UserError
from utils.generateVocabulary import END, START, UNKNOWN, loadVocabulary
from utils.safePickle import loadPickle

CAPTION_KEYS = ('original_captions', 'captions', 'captionsAsTokens')
DETECTIONS = 10
FAULTS_NAMED = 3       # of many unusable files
BATCHES_IN_FLIGHT = 4  # of a loader process in shared memory: two waiting, one in the making, one in use


def loadImage(path, shape):
    """One image's file.

    Args:
        path: the file's.
        shape: list, [D] or [10, D], which its features must have.

    Returns:
        dict of `cnn_features` (float32 tensor of that shape), `imgPath`, `original_captions` (list of str), `captions`
        (list of word lists), `captionsAsTokens` (list of token lists, plain integers), and `boxes` where the file has them
        (float32 [10, 4], x1 y1 x2 y2 in pixels).

    Raises:
        UserError: the file cannot be read, is broken, lacks a key, its features or boxes have another shape or are not
            finite, or a caption has no start or impossible tokens.
    """
    def fault(what):
        return UserError(f'The feature file {path} cannot be used: {what}. Copy it again from where the data came from.')

    try:
        image = loadPickle(path)
        features = image['cnn_features']
        features = features if torch.is_tensor(features) else torch.from_numpy(np.array(features))
        if features.is_complex():
            raise TypeError('the features are complex numbers')
        image = {**image, 'cnn_features': features.float(), 'imgPath': str(image['imgPath']),
                 'original_captions': [str(caption) for caption in image['original_captions']],
                 'captionsAsTokens': [[int(token) for token in caption] for caption in image['captionsAsTokens']]}
        if 'boxes' in image:
            image['boxes'] = np.asarray(image['boxes'], dtype=np.float32).reshape(-1, 4)
        captions = {len(image[key]) for key in CAPTION_KEYS}
    except KeyError as error:
        raise fault(f'it has no {error}') from None
    except OSError as error:
        raise UserError(f'The feature file {path} cannot be read: {error.strerror}.') from None
    except Exception as error:
        raise fault(f'{type(error).__name__}: {error}') from error
    if list(features.shape) != shape:
        raise fault(f'its features have the shape {list(features.shape)}, not {shape}')
    if not torch.isfinite(image['cnn_features']).all():
        raise fault('its features hold values that are not finite')
    if not np.isfinite(image.get('boxes', 0)).all():
        raise fault('its boxes hold values that are not finite')
    if captions == {0} or len(captions) != 1:
        raise fault(f'its lists {", ".join(CAPTION_KEYS)} are empty or of different lengths')
    if any(caption[:1] != [START] or min(caption) < 0 for caption in image['captionsAsTokens']):
        raise fault(f'a caption of captionsAsTokens does not begin with the start token {START}, or has one below 0')
    return image


class CaptionDataset(Dataset):
    """The images of one feature folder, in order of their file names.

    An item is asked for by its index alone, and comes with its first caption, or by (index, epoch, learned), and comes with
    one of its captions drawn from (seed, epoch, file name) alone, whichever process reads it; without words to learn where
    learned is False.

    Args:
        paths: the feature files.
        features_shape: list, [D] or [10, D].
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
    """Makes a batch of items, the captions in truncated parts of at most `truncated_backprop_length` steps."""

    def __init__(self, truncated_backprop_length):
        self.truncated_backprop_length = truncated_backprop_length

    def __call__(self, images):
        batch = self.captionTensors([image['tokens'] for image in images])
        batch['cnn_features'] = torch.stack([image['cnn_features'] for image in images])  # [B, D] or [B, 10, D]
        batch['orig_captions'] = [image['original_captions'][image['drawn']] for image in images]
        batch['captions'] = [image['captions'][image['drawn']] for image in images]
        batch['captionsAsTokens'] = [image['captionsAsTokens'][image['drawn']] for image in images]
        batch['allcaptions'] = [image['captions'] for image in images]
        batch['allcaptionsAsTokens'] = [image['captionsAsTokens'] for image in images]
        batch['imgPaths'] = [image['imgPath'] for image in images]
        return batch

    def captionTensors(self, captions):
        """xTokens, yTokens, yWeights [B, T, N], N = numbOfTruncatedSequences, from B lists of tokens, start to end.

        T is the longest caption's number of steps, or truncated_backprop_length where that is less. yTokens are xTokens one
        step later; yWeights are 1 where yTokens has a word or an end, 0 where it is padded.
        """
        longest = max(2, *map(len, captions)) - 1                                # a start token alone has no step
        T = min(longest, self.truncated_backprop_length)
        N = -(-longest // T)
        tokens = torch.full((len(captions), N * T + 1), END)
        weights = torch.zeros(len(captions), N * T)
        for row, caption in enumerate(captions):
            tokens[row, :len(caption)] = torch.tensor(caption)
            weights[row, :len(caption) - 1] = 1

        def parts(rows):                                                         # [B, N·T] to [B, T, N]
            return rows.reshape(-1, N, T).transpose(1, 2)

        return {'xTokens': parts(tokens[:, :-1]), 'yTokens': parts(tokens[:, 1:]), 'yWeights': parts(weights),
                'numbOfTruncatedSequences': N}


def availableCores():
    """The number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count() or 1


def sharedMemory():
    """The bytes that loader processes may fill with batches: what is free in /dev/shm, where there is one."""
    return shutil.disk_usage('/dev/shm').free if os.path.isdir('/dev/shm') else sys.maxsize


def startLoaderProcess(worker):
    """A loader process ends when its parent does or ends it, not by the signals that a terminal sends to all of a run; and
    its garbage collector leaves alone what it shares with the parent, which would become copies of its own."""
    gc.freeze()
    for name, action in (('SIGINT', signal.SIG_IGN), ('SIGHUP', signal.SIG_IGN), ('SIGTERM', signal.SIG_DFL)):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), action)


def progressBar(iterable, description, modelParam):
    """A bar in a terminal or a notebook; nothing where the output goes to a file, nor beside the main process's."""
    return tqdm(iterable, desc=description, leave=False,
                disable=not isMain() or (False if modelParam['inNotebook'] else None))


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
        return DataLoader(dataset, **batches, collate_fn=collate, num_workers=workers,
                          persistent_workers=persistent_workers and workers > 0, worker_init_fn=startLoaderProcess, **options,
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
