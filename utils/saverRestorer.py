"""Checkpoints of the last and the best epoch in a run's folder, and going on from them."""
import contextlib
import hashlib
import io
import os
import re

import torch

from utils.data.photoFeatures import readStandard
from utils.files.errors import UserError, foreignFile
from utils.files.ownFiles import inProject, runFolder, writeAtomically
from utils.files.safePickle import loadCheckpoint
from utils.generateVocabulary import loadVocabulary
from utils.networks.otherCheckpoints import ORDER_OF_ROWS, asOurs, spelledAs
from utils.scripts.settings import CONFIG, faultsIn, withDefaults

MOVE_AWAY = 'Move it away to go on without it.'
DELIVERED = inProject('report/models')  # models that come with the project


def checkpointEpochs(folder, kind):
    """The epochs of the 'last' or 'best' checkpoints in a run's folder."""
    matches = (re.fullmatch(rf'{kind}_epoch(\d+)\.pt', name) for name in os.listdir(folder))
    return [int(match[1]) for match in matches if match]


def newestCheckpoint(folder, kind):
    """The path of a folder's newest 'last' or 'best' checkpoint, or None if there is none."""
    epochs = checkpointEpochs(folder, kind) if os.path.isdir(folder) else []
    return os.path.join(folder, f'{kind}_epoch{max(epochs)}.pt') if epochs else None


def findForValidation(modelParam):
    """The path of the checkpoint to validate, or None.

    That is the run's best one, or its last one if `modelParam['restoreModelLast']`; if nothing has
    been trained here, the one that comes with the project.
    """
    kind = 'last' if modelParam['restoreModelLast'] else 'best'
    return (newestCheckpoint(os.path.join(modelParam['modelsDir'], modelParam['modelName']), kind)
            or newestCheckpoint(os.path.join(DELIVERED, modelParam['modelName']), 'best'))


def loadForValidation(modelParam):
    """The checkpoint to validate, as `readCheckpoint` returns it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = findForValidation(modelParam)
    if path is None:
        folder = os.path.join(modelParam['modelsDir'], modelParam['modelName'])
        raise UserError(f'There is no checkpoint to validate in {folder}. Train the model first: '
                        'python Exercise_Train_task*.py')
    return readCheckpoint(path)


def readCheckpoint(path, advice=MOVE_AWAY):
    """A checkpoint as a dict, with its `path` and with defaults for missing keys of `config`.

    Raises:
        UserError: it cannot be read; the message names it, and ends in the advice.
    """
    with foreignFile(path, advice):
        checkpoint = loadCheckpoint(path)
        if 'config' not in checkpoint:
            checkpoint = asOurs(checkpoint)
        config = withDefaults(checkpoint['config'])
        faults = faultsIn('config', config, CONFIG)
        if faults:
            raise ValueError('; '.join(faults))
        return {**checkpoint, 'path': path, 'epoch': int(checkpoint['epoch']), 'config': config,
                'model_state_dict': dict(checkpoint['model_state_dict'])}


def loadWeights(model, checkpoint, advice=MOVE_AWAY):
    """Gives a `Model` the weights of a checkpoint, as `readCheckpoint` returns it.

    Raises:
        UserError: they do not fit the network, or are not finite; the message names the checkpoint,
            and ends in the advice.
    """
    with foreignFile(checkpoint['path'], advice):
        weights = spelledAs(model.net, checkpoint['model_state_dict'])
        try:
            model.net.load_state_dict(weights)
        except RuntimeError as error:
            last = str(error).split('\n')[-1].strip('\t .')
            raise ValueError('it does not fit this network, as its task or its sizes differ: '
                             f'{last}') from error
        if not all(tensor.isfinite().all() for tensor in weights.values()):
            raise ValueError('some of its weights are not finite numbers')
        model.setFeatureMean(checkpoint.get('feature_mean'))
        model.start_epoch = checkpoint['epoch']


def checkpointBytes(checkpoint):
    """What the file of a checkpoint, a dict, holds."""
    data = io.BytesIO()
    torch.save(checkpoint, data)
    return data.getbuffer()


class SaverRestorer:
    """Saves a run's checkpoints in `modelsDir + modelName`, and restores them.

    A checkpoint is a dict of `epoch`, `model_state_dict`, `optimizer_state_dict`,
    `scaler_state_dict`, `feature_mean` (as in `Model`), `config`, `modelParam` (the keys that shape
    a run), `network` (the model's file), `vocabulary` (a hash of it), `words` (one per
    token), `photoStandard` (of a data folder made from photos), `history` and `best` (`epoch` and
    `loss`). Checkpoints of earlier versions, such as the demo's, lack some; delivered ones have no
    states of optimizer and scaler, and weights in half precision.
    """

    def __init__(self, config, modelParam):
        self.modelParam = modelParam
        token_to_word = loadVocabulary(modelParam['data_dir'])['TokenToWord']
        words = [token_to_word[token] for token in range(len(token_to_word))]
        self.run = {
            'config': config,
            'modelParam': {key: modelParam.get(key) for key in ('batch_size', 'numbOfEpochs')},
            'vocabulary': hashlib.sha1('\n'.join(words).encode()).hexdigest(),
            'words': words[:config['vocabulary_size']],
            'photoStandard': readStandard(modelParam['data_dir']),
        }
        self.best = None

    def save(self, epoch, currentLoss, model):
        """Writes last_epoch{n}.pt, and best_epoch{n}.pt at a new lowest loss; removes older ones.

        Args:
            epoch: the number of epochs done, n.
            currentLoss: -METEOR.
            model: the `Model`.
        """
        if self.best is None or currentLoss < self.best['loss']:
            self.best = {'epoch': epoch, 'loss': float(currentLoss)}
            with contextlib.suppress(FileNotFoundError):  # an earlier model's, perhaps delivered
                os.remove(runFolder(self.modelParam, name='scores_validation.json'))
        data = checkpointBytes({
            **self.run,
            'epoch': epoch,
            'model_state_dict': model.net.state_dict(),
            'optimizer_state_dict': model.optimizer.state_dict(),
            'scaler_state_dict': model.scaler.state_dict(),
            'feature_mean': model.feature_mean,
            'network': type(model.net).__module__,
            'history': model.history,
            'best': self.best,
        })
        folder = runFolder(self.modelParam)
        # the best one first: a run killed in between repeats the epoch
        newest_epochs = ('best', self.best['epoch']), ('last', epoch)
        for kind, newest in newest_epochs:
            if newest == epoch:
                writeAtomically(os.path.join(folder, f'{kind}_epoch{epoch}.pt'), data)
        for kind, newest in newest_epochs:
            for older in set(checkpointEpochs(folder, kind)) - {newest}:
                with contextlib.suppress(OSError):  # on Windows while another process reads it
                    os.remove(os.path.join(folder, f'{kind}_epoch{older}.pt'))

    def restore(self, model):
        """Brings `model` to the state of a checkpoint, if there is one to go on from, and says so.

        For training that is the last checkpoint, with `restoreModelBest` the best one. Changed
        settings need that key or `restoreModelLast`; the optimizer then starts anew. For inference
        it is `loadForValidation`'s.

        Returns:
            The model.

        Raises:
            UserError: the checkpoint belongs to another task, configuration, vocabulary or network,
                or cannot be read.
        """
        if self.modelParam['inference']:
            checkpoint = loadForValidation(self.modelParam)
            self._loadWeights(model, checkpoint)
            origin = 'delivered' if checkpoint['path'].startswith(DELIVERED) else 'trained here'
            print(f"Model, {origin}: {checkpoint['path']}, of epoch {model.start_epoch}.")
            return model
        folder = runFolder(self.modelParam)
        path = newestCheckpoint(folder, 'best')
        if not self.modelParam['restoreModelBest']:  # the best one where the last was moved away
            path = newestCheckpoint(folder, 'last') or path
        if path:
            self._goOn(model, readCheckpoint(path))
        else:
            print(f'A new run begins in {folder}.')
        return model

    def _goOn(self, model, checkpoint):
        changes = []
        with foreignFile(checkpoint['path'], MOVE_AWAY):
            for name in ('config', 'modelParam'):
                then = checkpoint.get(name, {})
                changes += [f'{name}[{key!r}] was {then.get(key)!r} and is {now!r}'
                            for key, now in self.run[name].items() if now != then.get(key)]
        forced = self.modelParam['restoreModelLast'] or self.modelParam['restoreModelBest']
        if changes and not forced:
            wayOn = ''
            with contextlib.suppress(UserError):
                self._loadWeights(model, checkpoint)
                wayOn = "; or go on with these by modelParam['restoreModelLast'] = 1"
            raise UserError(f"{checkpoint['path']} was trained with other settings: "
                            f"{'; '.join(changes)}. Change them back{wayOn}; or, for a new run, "
                            "move its folder away or change modelParam['modelName'].")
        self._loadWeights(model, checkpoint)
        model.optimizer.step()  # without gradients it changes nothing; the scheduler wants it
        for _ in range(model.start_epoch):
            model.scheduler.step()
        with foreignFile(checkpoint['path'], MOVE_AWAY):
            if not changes and 'scaler_state_dict' in checkpoint:
                state = checkpoint['optimizer_state_dict']                # with its rate
                for group in state['param_groups']:  # which may come from another device
                    group['fused'] = model.optimizer.defaults.get('fused')
                model.optimizer.load_state_dict(state)
                model.scaler.load_state_dict(checkpoint['scaler_state_dict'])
            model.history = list(checkpoint.get('history', []))
        if newestCheckpoint(runFolder(self.modelParam), 'best'):  # it may be moved away
            self.best = checkpoint.get('best')
        print(f"Going on from {checkpoint['path']}, after epoch {model.start_epoch}. To begin "
              'anew, move its folder away.')

    def _loadWeights(self, model, checkpoint):
        ofOtherCode = 'vocabulary' not in checkpoint
        if ofOtherCode:
            print(f"{checkpoint['path']}: {ORDER_OF_ROWS}")
            isOther = checkpoint['config']['vocabulary_size'] > len(self.run['words'])
        else:
            isOther = checkpoint['vocabulary'] != self.run['vocabulary']
        if isOther:
            raise UserError(f"The checkpoint {checkpoint['path']} was trained with another "
                            f"vocabulary than that in {self.modelParam['data_dir']}. Set DATA_ROOT "
                            'in utils/dataRoot.py to the data that it was trained on, or move the '
                            'checkpoint away.')
        loadWeights(model, checkpoint)
