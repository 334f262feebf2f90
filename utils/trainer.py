"""Trains a model of any of the tasks: `train` does all that a training script asks for."""
import math
import os
import time
from contextlib import closing, nullcontext

import torch

from utils.dataLoader import DataLoaderWrapper
from utils.demo.demoSettings import fitToDemo
from utils.files.atomic import writeJson
from utils.files.defaults import allEpochs, withDefaults
from utils.files.project import runFolder
from utils.files.runFiles import readRunFile
from utils.model import Model, describeDevice, seedEverything
from utils.networks.captionRewards import checkVocabulary
from utils.networks.learningRecipe import ASSIGNMENT, informStart
from utils.networks.selfCritical import LEARNING_RATE, RewardedBatches
from utils.plotter import Plotter
from utils.processes.distributed import averaged, fromMain, isMain, lossOfShares, worldSize
from utils.processes.java import JavaError
from utils.processes.progress import progressBar
from utils.saverRestorer import SaverRestorer
from utils.scripts.start import announce, prepare
from utils.validate_metrics import CaptionValidator, finite, teacherForcedLoss

BATCHES_BETWEEN_LOOKS = {'cpu': 1, 'cuda': 20}  # at the loss, for which a GPU has to be waited for


def train(config, modelParam, imageCaptionModel):
    """Trains a task's model to the end, from the last epoch where it has been begun before.

    Args:
        config, modelParam: the dictionaries of a training script.
        imageCaptionModel: the class of the network.

    Raises:
        UserError: settings, data, or what an earlier run has left cannot be used.
        JavaError: there is no Java, which the scores need.
    """
    modelParam = prepare(modelParam, config)                          # settings, folders, data and Java
    config, modelParam = fitToDemo(withDefaults(config), modelParam)  # where the data are the demo's
    dataLoader = DataLoaderWrapper(config, modelParam)                # batches of features and captions
    config = dataLoader.config                                        # with the vocabulary's size
    model = Model(config, modelParam, imageCaptionModel)              # network, optimizer and schedule
    announce(modelParam, dataLoader, model)
    dataLoader.checkFiles()
    saveRestorer = SaverRestorer(config, modelParam)                  # checkpoints
    saveRestorer.restore(model)
    Trainer(model, modelParam, config, dataLoader, saveRestorer).train()


class Trainer:
    """Trains, validates, scores and saves, epoch by epoch; a new model gets the start that its learning recipe asks for.

    Args:
        model: a `Model`, as the `SaverRestorer` left it; it is new where no epoch is done.
        modelParam, config: dicts.
        dataLoader: a `DataLoaderWrapper`.
        saveRestorer: a `SaverRestorer`.
    """

    def __init__(self, model, modelParam, config, dataLoader, saveRestorer):
        self.model = model
        self.modelParam = modelParam
        self.config = config
        self.dataLoader = dataLoader
        self.saveRestorer = saveRestorer
        if config['selfCriticalEpochs']:
            checkVocabulary(config['vocabulary_size'])
        if config['learningRecipe'] != ASSIGNMENT and model.start_epoch == 0:
            informStart(model, *fromMain(dataLoader.trainingStatistics))
        self.rewards = None  # from the first self-critical epoch on
        self.lossOfParts = lossOfShares(model) if worldSize() > 1 else model.lossOfParts
        self.plotter = Plotter(modelParam, config)
        self.times = readRunFile(runFolder(modelParam), 'times.json', [])

    @property
    def epochs(self):
        """How many there are in all."""
        return allEpochs(self.modelParam, self.config)

    def train(self):
        """Trains from `model.start_epoch` to the last epoch. After each epoch the run's folder holds its checkpoint,
        history.json, times.json and captions_epoch{n}.json, and the plots' folder the curves. Of several processes the main
        one alone validates and writes."""
        if isMain():
            self.plotter.plotMissing(self.model.history)
        if self.model.start_epoch < self.epochs:
            with closing(CaptionValidator(self.modelParam, self.dataLoader)) if isMain() else nullcontext() as validator:
                for epoch in range(self.model.start_epoch + 1, self.epochs + 1):
                    self._train_epoch(epoch, validator)

    def _train_epoch(self, epoch, validator):
        model, folder = self.model, runFolder(self.modelParam)
        seedEverything(self.config['seed'], epoch)
        if self._isSelfCritical(epoch):
            self._setSelfCritical(epoch)
        learning_rate = model.optimizer.param_groups[0]['lr']
        losses, seconds = {}, {}
        for mode, is_train in self.modelParam['modeSetups']:
            start = time.monotonic()
            loss = self.run_epoch(mode, model, is_train, epoch)
            losses['reward' if mode == 'train' and self._isSelfCritical(epoch) else f'{mode}_loss'] = loss
            seconds['training_seconds' if mode == 'train' else 'validation_seconds'] = time.monotonic() - start
        model.scheduler.step()
        if not isMain():
            return
        start = time.monotonic()
        results = validator.caption(model)
        try:
            scores = validator.score(results)
        except JavaError as error:  # training is never lost to a scorer
            print(f'Epoch {epoch} stays without scores. {error}', flush=True)
            scores = {}
        seconds['scoring_seconds'] = time.monotonic() - start

        model.history.append({'epoch': epoch, 'learning_rate': learning_rate, **losses, **scores})
        self.times = [times for times in self.times if times['epoch'] < epoch] + [
            {'epoch': epoch, **seconds, 'device': describeDevice(model.device)}]
        writeJson(os.path.join(folder, f'captions_epoch{epoch}.json'), results)
        writeJson(os.path.join(folder, 'history.json'), model.history)
        writeJson(os.path.join(folder, 'times.json'), self.times)  # apart from the history, which a seed repeats
        self.plotter.plot(model.history)
        # the checkpoint comes last: an epoch whose checkpoint is there has left everything, any other is done again
        self.saveRestorer.save(epoch, -scores.get('meteor', -math.inf), model)
        print(f'epoch {epoch}/{self.epochs}  '
              + '  '.join(f"{name.replace('_', ' ')} {loss:.3f}" for name, loss in losses.items())
              + ''.join(f'  {name} {scores[key]:.4f}' for name, key in (('METEOR', 'meteor'), ('BLEU-4', 'bleu_4')) if scores)
              + f'  {sum(seconds.values()):.0f} s', flush=True)

    def _isSelfCritical(self, epoch):
        return self.modelParam['numbOfEpochs'] < epoch <= self.epochs

    def _setSelfCritical(self, epoch):
        """Makes ready for a self-critical epoch: the rewards, and the optimizer, which has a learning rate of its own and at first
        no memory."""
        self.rewards = self.rewards or fromMain(self.dataLoader.captionRewards)
        optimizer = self.model.optimizer
        if not self._isSelfCritical(epoch - 1):
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group['lr'] = LEARNING_RATE

    def run_epoch(self, mode, model, is_train, cur_epoch):
        """One pass over the images: 'train' with optimizer steps, 'val' without; teacher-forced, or self-critical training.

        Args:
            mode: 'train' or 'val'.
            model: the `Model`.
            is_train: True; captions that run free have no loss, `CaptionValidator` scores them.
            cur_epoch: integer, which decides the order of the images and the captions drawn.

        Returns:
            The loss per word, in nats; the mean reward where that is learned from.

        Raises:
            UserError: the loss is not finite.
        """
        if not is_train:
            raise ValueError("a pass with is_train False has no loss; 'val' is scored running free after every epoch")
        loader = self.dataLoader.myDataDicts[mode]
        batches = progressBar(loader, f'epoch {cur_epoch} {mode}', self.modelParam)
        if mode == 'val':
            return teacherForcedLoss(model, batches)
        selfCritical = self._isSelfCritical(cur_epoch)
        model.net.train(not selfCritical)                                        # captions are said and learned without dropout
        if selfCritical:
            batches = RewardedBatches(batches, model, loader, self.rewards)
        loader.batch_sampler.sampler.set_epoch(cur_epoch)
        total, words, unread = 0.0, 0.0, []
        for number, batch in enumerate(batches, start=1):
            words_of_batch = averaged(float(batch['yWeights'].sum()))            # per process, as its gradients are
            words += words_of_batch
            for loss in model.learn(self.lossOfParts(batch), words_of_batch):
                unread.append((loss, batch['imgPaths'], f'epoch {cur_epoch}, batch {number}'))
            if number % BATCHES_BETWEEN_LOOKS[model.device.type] == 0 or number == len(loader):
                values = torch.stack([loss for loss, _, _ in unread]).tolist()
                total += sum(finite(value, *origin) for value, (_, *origin) in zip(values, unread))
                unread = []
                batches.set_postfix_str(f'loss {total / words:.3f}', refresh=False)
        return averaged(batches.total) / averaged(batches.number) if selfCritical else averaged(total) / words
