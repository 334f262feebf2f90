"""Checkpoints: the last epoch's and the best epoch's, in the run's folder; and going on from them."""
import contextlib
import hashlib
import io
import os
import re

import torch

from utils.data.dataFolder import POOLED, UNPOOLED, changesOfFiles, filesRead, runsOnEarlierData
from utils.data.photoFeatures import readStandard
from utils.files.atomic import writeAtomically
from utils.files.defaults import allEpochs, withDefaults
from utils.files.errors import UserError
from utils.files.project import inProject, runFolder
from utils.files.safePickle import loadCheckpoint
from utils.generateVocabulary import loadVocabulary
from utils.processes.distributed import fromMain

PARAMETERS_OF_A_RUN = ('batch_size', 'numbOfEpochs')  # in modelParam; all keys of config belong to a run
DELIVERED = inProject(os.path.join('report', 'models'))  # models that come with the project


def checkpointEpochs(folder, kind):
    """The epochs of the 'last' or 'best' checkpoints in a run's folder."""
    matches = (re.fullmatch(rf'{kind}_epoch(\d+)\.pt', name) for name in os.listdir(folder))
    return [int(match[1]) for match in matches if match]


def newestCheckpoint(folder, kind):
    """The path of the newest 'last' or 'best' checkpoint in a folder, or None; the folder may be missing."""
    epochs = checkpointEpochs(folder, kind) if os.path.isdir(folder) else []
    return os.path.join(folder, f'{kind}_epoch{max(epochs)}.pt') if epochs else None


def findCheckpoint(modelParam, kind):
    """The path of the run's newest 'last' or 'best' checkpoint, or None."""
    return newestCheckpoint(os.path.join(modelParam['modelsDir'], modelParam['modelName']), kind)


def findForValidation(modelParam):
    """The path of the checkpoint to validate: the run's best one, or its last one where `modelParam['restoreModelLast']` says
    so; where nothing has been trained here, the one that comes with the project; or None."""
    return (findCheckpoint(modelParam, 'last' if modelParam['restoreModelLast'] else 'best')
            or newestCheckpoint(os.path.join(DELIVERED, modelParam['modelName']), 'best'))


def loadForValidation(modelParam):
    """The checkpoint to validate, as `readCheckpoint` returns it.

    Raises:
        UserError: there is none, or it cannot be read.
    """
    path = findForValidation(modelParam)
    while path is not None:
        try:
            return readCheckpoint(path)
        except UserError:
            newer = findForValidation(modelParam)
            if newer == path:
                raise
            path = newer  # a training that is running has replaced it
    raise UserError(f"There is no {'last' if modelParam['restoreModelLast'] else 'best'} checkpoint in "
                    f"{runFolder(modelParam)}. Train the model first: python {modelParam['trainingScript']}")


def readCheckpoint(path):
    """A checkpoint as a dict, its `path` added. One of the handed-out code has no configuration and counts epochs from 0: it
    gets a configuration from its weights, and the number of epochs done.

    Raises:
        UserError: it cannot be read; the message names it.
    """
    try:
        checkpoint = {**loadCheckpoint(path), 'path': path}
        weights, epoch = dict(checkpoint['model_state_dict']), int(checkpoint['epoch'])
        if 'config' not in checkpoint:
            checkpoint['config'] = sizesOf(weights)
            epoch += 1
        checkpoint['config'] = withDefaults(checkpoint['config'])  # which may be older than some of the keys
        if 'inputLayer.feature_mean' in weights:  # where earlier versions kept it
            checkpoint['feature_mean'] = weights.pop('inputLayer.feature_mean')
        return {**checkpoint, 'model_state_dict': weights, 'epoch': epoch}
    except Exception as error:
        raise UserError(f'The checkpoint {path} cannot be read: {type(error).__name__}: {error}. Move it away to go on '
                        'without it.') from error


def sizesOf(weights):
    """The keys of `config` that a network's weights, a state dict with the names of the assignment or the hand-out, tell.

    Raises:
        KeyError: the names are others.
    """
    features = weights[_renamed('inputLayer.1.weight', weights)].shape[1]
    words, embedding_size = weights['embedding_layer.weight'].shape
    attention = any('attention' in name for name in weights)
    return {'number_of_cnn_features': features, 'embedding_size': embedding_size, 'vocabulary_size': words,
            'hidden_state_sizes': weights['output_layer.weight'].shape[1],
            'num_rnn_layers': len({name.split('.')[2] for name in weights if name.startswith('rnn.cells.')}),
            'cellType': ('LSTM' if 'rnn.cells.0.weight_f' in weights else 'GRU' if 'rnn.cells.0.weight_u' in weights else 'RNN'),
            'featurepathstub': UNPOOLED if attention else POOLED}


def _renamed(name, names):
    """A weight's name as it is among `names`, which may spell the input layer in the hand-out's way."""
    for ours, theirs in (('inputLayer.', 'input_layer.'), ('input_layer.', 'inputLayer.')):
        other = name.replace(ours, theirs, 1)
        if name not in names and other in names:
            return other
    return name


def vocabularyFingerprint(vocabulary):
    """A short text that another vocabulary, or another order of its words, does not have."""
    words = [vocabulary['TokenToWord'][token] for token in range(len(vocabulary['TokenToWord']))]
    return hashlib.sha1('\n'.join(words).encode()).hexdigest()


class SaverRestorer:
    """Saves a run's checkpoints in `modelsDir + modelName`, and restores them.

    A checkpoint is a dict of `epoch`, `model_state_dict`, `optimizer_state_dict`, `scheduler_state_dict`,
    `scaler_state_dict`, `feature_mean` (as in `Model`), `config`, `modelParam` (the keys that shape a run), `network` (the
    model's file), `vocabulary` (its fingerprint), `words` (those of the tokens), `files` (as `filesRead` returns them),
    `photoStandard` (of a data folder made from photos), `history` and `best` (`epoch` and `loss`).
    """

    def __init__(self, config, modelParam):
        self.config = config
        self.modelParam = modelParam
        vocabulary = loadVocabulary(modelParam['data_dir'])
        self.vocabulary = vocabularyFingerprint(vocabulary)
        self.words = [vocabulary['TokenToWord'][token] for token in range(config['vocabulary_size'])]
        self.files = filesRead(modelParam['data_dir'], config['featurepathstub'])
        self.photoStandard = readStandard(modelParam['data_dir'])
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
            'scaler_state_dict': model.scaler.state_dict(),
            'feature_mean': model.feature_mean,
            'config': self.config,
            'modelParam': {key: self.modelParam[key] for key in PARAMETERS_OF_A_RUN},
            'network': type(model.net).__module__,
            'vocabulary': self.vocabulary,
            'words': self.words,
            'files': self.files,
            'photoStandard': self.photoStandard,
            'history': model.history,
            'best': self.best,
        }
        data = io.BytesIO()
        torch.save(checkpoint, data)
        folder = runFolder(self.modelParam)
        for kind in kinds:
            writeAtomically(os.path.join(folder, f'{kind}_epoch{epoch}.pt'), data.getbuffer())
        for kind, newest in (('last', epoch), ('best', self.best['epoch'])):
            for other in set(checkpointEpochs(folder, kind)) - {newest}:
                os.remove(os.path.join(folder, f'{kind}_epoch{other}.pt'))

    def restore(self, model):
        """Brings `model` to the state of a checkpoint, where there is one to go on from, and says so.

        For training that is the last checkpoint of an unfinished run; `restoreModelLast` or `restoreModelBest` force
        the last or the best one of any run. For inference it is `loadForValidation`'s.

        Returns:
            The model.

        Raises:
            UserError: the checkpoint belongs to another task, configuration, vocabulary or network, or cannot be read.
        """
        if self.modelParam['inference']:
            self.load(model, loadForValidation(self.modelParam))
        else:
            checkpoint = fromMain(self._loadForTraining)
            if checkpoint is not None:
                self._goOn(model, checkpoint)
            else:
                self._sayWhatIsNotGoneOnFrom()
        return model

    def load(self, model, checkpoint):
        """Brings `model`, which is to be validated, to the state of a checkpoint, and says which; errors as `restore`'s."""
        self._loadWeights(model, checkpoint)
        model.start_epoch = checkpoint['epoch']
        by = checkpoint.get('trainedBy')
        whose = f'was trained by {by}' if by else 'comes with the project' if checkpoint['path'].startswith(DELIVERED) else \
            'was trained here'
        print(f"Model: {checkpoint['path']}, which {whose}, after epoch {model.start_epoch}.", flush=True)

    def _goOn(self, model, checkpoint):
        changes = self._changes(checkpoint)
        if changes and not (self.modelParam['restoreModelLast'] or self.modelParam['restoreModelBest']):
            raise UserError(f'The run in {runFolder(self.modelParam)} cannot go on, since its configuration has changed: '
                            f"{'; '.join(changes)}. Change that back, or start another run by moving the folder away or "
                            "changing modelParam['modelName'], or go on all the same by modelParam['restoreModelLast'] = 1.")
        self._loadWeights(model, checkpoint)
        self._loadOptimizer(model, checkpoint, changes)
        model.start_epoch = checkpoint['epoch']
        model.history = checkpoint.get('history', [])
        self.best = checkpoint.get('best')
        epochs = allEpochs(self.modelParam, self.config)
        if model.start_epoch >= epochs:
            print(f'This model is trained: {model.start_epoch} of {epochs} epochs are done, and '
                  f'{runFolder(self.modelParam)} is kept as it is. To train a new one, move that folder away or change '
                  "modelParam['modelName'].", flush=True)
        else:
            print(f"Going on from {checkpoint['path']}, after epoch {model.start_epoch}.", flush=True)

    def _loadForTraining(self):
        path = findCheckpoint(self.modelParam, 'best' if self.modelParam['restoreModelBest'] else 'last')
        return path and readCheckpoint(path)

    def _sayWhatIsNotGoneOnFrom(self):
        for folder in runsOnEarlierData(runFolder(self.modelParam)):
            print(f"A new run begins, in {runFolder(self.modelParam)}. The one in {folder} learned other files of a data folder "
                  'of the same name, and is kept as it is.', flush=True)

    def _changes(self, checkpoint):
        """What is configured otherwise than in the checkpoint's run, in words."""
        then = {'config': checkpoint['config'], 'modelParam': checkpoint.get('modelParam', {})}
        now = {'config': self.config, 'modelParam': {key: self.modelParam[key] for key in PARAMETERS_OF_A_RUN}}
        return [f'{name}[{key!r}] was {then[name].get(key)!r} and is {now[name].get(key)!r}'
                for name in then for key in sorted(then[name].keys() | now[name].keys())
                if then[name].get(key) != now[name].get(key)]

    def _loadWeights(self, model, checkpoint):
        path, network = checkpoint['path'], type(model.net).__module__
        if 'vocabulary' not in checkpoint:
            print(f'{path} is a checkpoint of other code. If the rows of its cells\' weights are in another order than here, '
                  'first those of the word, then those of the image, then those of the state, its captions make no sense.',
                  flush=True)
        if checkpoint.get('network', network) != network:
            raise UserError(f"The checkpoint {path} belongs to another task: it was trained by {checkpoint['network']}.py, and "
                            f'this script runs {network}.py. Move it back to the folder of its task.')
        if checkpoint.get('vocabulary', self.vocabulary) != self.vocabulary:
            raise UserError(f'The checkpoint {path} was trained with another vocabulary than that in '
                            f"{self.modelParam['data_dir']}. Set DATA_ROOT in utils/dataRoot.py to the data that it was "
                            'trained on, or move the checkpoint away.')
        changes = changesOfFiles(checkpoint['files'], self.files) if 'files' in checkpoint else ''
        if changes:
            print(changes, flush=True)
        try:
            names = model.net.state_dict().keys()
            model.net.load_state_dict({_renamed(name, names): weight for name, weight in checkpoint['model_state_dict'].items()})
        except RuntimeError as error:
            raise UserError(f'The checkpoint {path} does not fit this network: {self._misfits(model, checkpoint) or error}. It '
                            'belongs to another task or to other sizes; move it away or set the configuration that it was '
                            'trained with.') from error
        model.setFeatureMean(checkpoint.get('feature_mean'))

    @staticmethod
    def _misfits(model, checkpoint):
        """The sizes in which the checkpoint's weights and the network differ, in words; '' where they have other names."""
        with contextlib.suppress(KeyError):
            theirs, ours = sizesOf(checkpoint['model_state_dict']), sizesOf(model.net.state_dict())
            return ', '.join(f'its {key} is {theirs[key]!r}, not {ours[key]!r}' for key in ours if theirs[key] != ours[key])
        return ''

    def _loadOptimizer(self, model, checkpoint, changes):
        """The optimizer's and the schedule's state; of a run with another configuration the optimizer's moments alone."""
        optimizer, scheduler = model.optimizer, model.scheduler
        if not changes and 'optimizer_state_dict' in checkpoint:  # which a delivered model lacks
            optimizer.load_state_dict(checkpoint['optimizer_state_dict'])
            scheduler.load_state_dict(checkpoint['scheduler_state_dict'])
            if checkpoint.get('scaler_state_dict'):  # which is empty where nothing is scaled
                model.scaler.load_state_dict(checkpoint['scaler_state_dict'])
            return
        if checkpoint['config'].get('optimizer') == self.config['optimizer'] and 'optimizer_state_dict' in checkpoint:
            optimizer.load_state_dict({**optimizer.state_dict(), 'state': checkpoint['optimizer_state_dict']['state']})
        scheduler.last_epoch = checkpoint['epoch']
        falls = sum(milestone <= checkpoint['epoch'] for milestone in self.config['scheduler_milestones'] or [])
        for group in optimizer.param_groups:
            group['lr'] = group['initial_lr'] * self.config['scheduler_factor'] ** falls
