"""Checkpoints: the last epoch's and the best epoch's, in the run's folder; and going on from them."""
import hashlib
import os
import re

import torch

from utils.files import UserError, runFolder, writeAtomically
from utils.generateVocabulary import loadVocabulary
from utils.safePickle import loadCheckpoint

PARAMETERS_OF_A_RUN = ('batch_size', 'numbOfEpochs')  # in modelParam; all keys of config belong to a run


def checkpointEpochs(folder, kind):
    """The epochs of the 'last' or 'best' checkpoints in a run's folder."""
    matches = (re.fullmatch(rf'{kind}_epoch(\d+)\.pt', name) for name in os.listdir(folder))
    return [int(match[1]) for match in matches if match]


def findCheckpoint(modelParam, kind):
    """The path of the run's newest 'last' or 'best' checkpoint, or None."""
    folder = runFolder(modelParam)
    epochs = checkpointEpochs(folder, kind)
    return os.path.join(folder, f'{kind}_epoch{max(epochs)}.pt') if epochs else None


def loadForValidation(modelParam):
    """The checkpoint to validate: the best one, or the last one where `modelParam['restoreModelLast']` says so.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    kind = 'last' if modelParam['restoreModelLast'] else 'best'
    path = findCheckpoint(modelParam, kind)
    if path is None:
        raise UserError(f'There is no {kind} checkpoint in {runFolder(modelParam)}. Train the model first: '
                        f"python {modelParam['trainingScript']}")
    return _load(path)


def _load(path):
    try:
        return {**loadCheckpoint(path), 'path': path}
    except Exception as error:
        raise UserError(f'The checkpoint {path} cannot be read: {type(error).__name__}: {error}. Move it away to go on '
                        'without it.') from error


def vocabularyFingerprint(vocabulary):
    """A short text that another vocabulary, or another order of its words, does not have."""
    words = [vocabulary['TokenToWord'][token] for token in range(len(vocabulary['TokenToWord']))]
    return hashlib.sha1('\n'.join(words).encode()).hexdigest()


class SaverRestorer:
    """Saves a run's checkpoints in `modelsDir + modelName`, and restores them.

    A checkpoint is a dict of `epoch`, `model_state_dict`, `optimizer_state_dict`, `scheduler_state_dict`, `config`,
    `modelParam` (the keys that shape a run), `vocabulary` (its fingerprint), `history` and `best` (`epoch` and `loss`).
    """

    def __init__(self, config, modelParam):
        self.config = config
        self.modelParam = modelParam
        self.vocabulary = vocabularyFingerprint(loadVocabulary(modelParam['data_dir']))
        self.best = None

    def save(self, epoch, currentLoss, model):
        """Writes last_epoch{n}.pt, and best_epoch{n}.pt where no earlier epoch had a lower loss; then removes the older.

        Args:
            epoch: the number of epochs done, n.
            currentLoss: what the best epoch has least of, -METEOR.
            model: the `Model`.
        """
        kinds = ['last']
        if self.best is None or currentLoss < self.best['loss']:
            self.best = {'epoch': epoch, 'loss': float(currentLoss)}
            kinds = ['best', 'last']  # in this order: killed in between, the run goes on from the earlier last
        checkpoint = {
            'epoch': epoch,
            'model_state_dict': model.net.state_dict(),
            'optimizer_state_dict': model.optimizer.state_dict(),
            'scheduler_state_dict': model.scheduler.state_dict(),
            'config': self.config,
            'modelParam': {key: self.modelParam[key] for key in PARAMETERS_OF_A_RUN},
            'vocabulary': self.vocabulary,
            'history': model.history,
            'best': self.best,
        }
        folder = runFolder(self.modelParam)
        for kind in kinds:
            writeAtomically(os.path.join(folder, f'{kind}_epoch{epoch}.pt'),
                            lambda partial_path: torch.save(checkpoint, partial_path))
        for kind, newest in (('last', epoch), ('best', self.best['epoch'])):
            for other in set(checkpointEpochs(folder, kind)) - {newest}:
                os.remove(os.path.join(folder, f'{kind}_epoch{other}.pt'))

    def restore(self, model):
        """Brings `model` to the state of a checkpoint, where there is one to go on from, and says so.

        For training that is the last checkpoint of an unfinished run; `restoreModelLast` or `restoreModelBest` force
        the last or the best one of any run. For inference it is the best, or with `restoreModelLast` the last one.

        Raises:
            UserError: the checkpoint belongs to another configuration, vocabulary or network, or cannot be read.
        """
        if self.modelParam['inference']:
            checkpoint = loadForValidation(self.modelParam)
            self._checkVocabulary(checkpoint)
            self._loadWeights(model, checkpoint)
            return
        forced = self.modelParam['restoreModelLast'] or self.modelParam['restoreModelBest']
        path = findCheckpoint(self.modelParam, 'best' if self.modelParam['restoreModelBest'] else 'last')
        if path is None:
            return
        checkpoint = _load(path)
        self._checkVocabulary(checkpoint)
        if not forced:
            self._checkConfiguration(checkpoint)
        self._loadWeights(model, checkpoint)
        model.optimizer.load_state_dict(checkpoint['optimizer_state_dict'])
        model.scheduler.load_state_dict(checkpoint['scheduler_state_dict'])
        model.start_epoch = checkpoint['epoch']
        model.history = checkpoint['history']
        self.best = checkpoint['best']
        if model.start_epoch >= self.modelParam['numbOfEpochs']:
            print(f"This model is trained: {model.start_epoch} of {self.modelParam['numbOfEpochs']} epochs are done, and "
                  f'{runFolder(self.modelParam)} is kept as it is. To train a new one, move that folder away or change '
                  "modelParam['modelName'].")
        else:
            print(f'Going on from {path}, after epoch {model.start_epoch}.')

    def _checkVocabulary(self, checkpoint):
        if checkpoint['vocabulary'] != self.vocabulary:
            raise UserError(f"The checkpoint {checkpoint['path']} was trained with another vocabulary than that in "
                            f"{self.modelParam['data_dir']}. Set DATA_ROOT in utils/dataRoot.py to the data that it was "
                            'trained on, or move the checkpoint away.')

    def _checkConfiguration(self, checkpoint):
        for name, saved, now in (('config', checkpoint['config'], self.config),
                                 ('modelParam', checkpoint['modelParam'], self.modelParam)):
            changed = [f'{name}[{key!r}] was {saved.get(key)!r} and is {now.get(key)!r}'
                       for key in (saved.keys() | now.keys() if name == 'config' else saved)
                       if saved.get(key) != now.get(key)]
            if changed:
                raise UserError(f"The run in {runFolder(self.modelParam)} cannot go on, since its configuration has "
                                f"changed: {'; '.join(sorted(changed))}. Change that back, or start another run by moving "
                                "the folder away or changing modelParam['modelName'], or go on all the same by "
                                "modelParam['restoreModelLast'] = 1.")

    def _loadWeights(self, model, checkpoint):
        try:
            model.net.load_state_dict(checkpoint['model_state_dict'])
        except RuntimeError as error:
            raise UserError(f"The checkpoint {checkpoint['path']} does not fit this network: {error}. It belongs to "
                            'another task or to other sizes; move it away or set the configuration that it was trained '
                            'with.') from error
