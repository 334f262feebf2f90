"""Trains a model of any of the tasks: `train` does all that a training script asks for."""
import math
import os
import time
from contextlib import closing, nullcontext

import torch

from utils.data.dataFolder import MODES
from utils.demo.demoSettings import fitToDemo
from utils.files.errors import UserError
from utils.files.ownFiles import readJson, runFolder, wasMoved, writeJson
from utils.model import describeDevice, seedEverything
from utils.networks.learningRecipe import ASSIGNMENT, informStart
from utils.networks.selfCritical import LEARNING_RATE, RewardedBatches
from utils.plotter import Plotter
from utils.processes.distributed import averaged, fromMain, isMain, startAlike, worldSize
from utils.processes.progress import progressBar
from utils.scripts.settings import CONFIG, allEpochs, withDefaults
from utils.scripts.start import load, prepare
from utils.validate_metrics import CaptionValidator, finite, teacherForcedLoss

BATCHES_BETWEEN_CHECKS = {'cpu': 1, 'cuda': 20}  # of the loss; each one waits for a GPU


def train(config, modelParam, imageCaptionModel):
    """Trains a task's model to the end, resuming after the last saved epoch if any.

    Args:
        config, modelParam: the dictionaries of a training script.
        imageCaptionModel: the class of the network.

    Raises:
        UserError: settings, data, or what an earlier run has left cannot be used.
        JavaError: there is no Java, which the scores need.
    """
    modelParam, config = prepare(modelParam, config)      # settings, data and Java
    stub = getattr(imageCaptionModel, 'featurepathstub', config['featurepathstub'])
    if config['featurepathstub'] != stub:
        raise UserError(f"config['featurepathstub'] must be {stub!r} for this network.")
    config, modelParam = fitToDemo(config, modelParam)    # for the demo data
    # batches, network and optimizer, checkpoints
    dataLoader, model, saveRestorer = load(config, modelParam, imageCaptionModel)
    Trainer(model, modelParam, dataLoader.config, dataLoader, saveRestorer).train()


class Trainer:
    """Trains, validates, scores and saves, epoch by epoch.

    A new model gets the start that its learning recipe asks for.

    Args:
        model: a `Model`, as the `SaverRestorer` left it; it is new where no epoch is done.
        modelParam, config: dicts.
        dataLoader: a `DataLoaderWrapper`.
        saveRestorer: a `SaverRestorer`.
    """

    def __init__(self, model, modelParam, config, dataLoader, saveRestorer):
        self.model = model
        self.modelParam = modelParam
        self.config = config = withDefaults(config)
        self.dataLoader = dataLoader
        self.saveRestorer = saveRestorer
        self.epochs = allEpochs(modelParam, config)
        if config['learningRecipe'] != ASSIGNMENT and model.start_epoch == 0:
            informStart(model, *fromMain(dataLoader.trainingStatistics))
        self.rewards = None  # from the first self-critical epoch on
        self.plotter = Plotter(modelParam, config)
        self.times = readJson(runFolder(modelParam, name='times.json'), [])

    def train(self):
        """Trains from `model.start_epoch` to the last epoch.

        After each epoch the run's folder holds its checkpoint, history.json, times.json and
        captions_epoch{n}.json, and the plots' folder the curves. Of several processes only the
        main one validates and writes.
        """
        if self.model.start_epoch >= self.epochs:
            print(f'All {self.epochs} epochs are done. To train a new model, move '
                  f"{runFolder(self.modelParam)} away or change modelParam['modelName'].")
            return
        self._announce()
        validating = nullcontext()
        if isMain():
            validating = closing(CaptionValidator(self.modelParam, self.dataLoader))
        with validating as validator:
            for epoch in range(self.model.start_epoch + 1, self.epochs + 1):
                self._train_epoch(epoch, validator)
        if isMain():
            self._printEnd(self.saveRestorer.best['epoch'])

    def _announce(self):
        """Prints what goes beyond the assignment, and which milestones change nothing."""
        learned = self.modelParam['numbOfEpochs']  # the later ones have a rate of their own
        special = [f'{key} {self.config[key]!r}'
                   for key in ('learningRecipe', 'attention', 'precision')
                   if self.config[key] != CONFIG[key][0]]
        if self._isSelfCritical(self.epochs):
            special.append(f'epochs {learned + 1}–{self.epochs} of {self.epochs} self-critical '
                           '(CIDEr-D + METEOR)')
        if special:
            print(f"Beyond the assignment: {', '.join(special)}.")
        late = [milestone for milestone in self.config['scheduler_milestones'] or []
                if milestone >= learned]
        if late:
            print(f"config['scheduler_milestones'] without effect: {', '.join(map(str, late))}. "
                  f'The rate falls after a milestone; the schedule ends with epoch {learned}.')

    def _train_epoch(self, epoch, validator):
        model = self.model
        if worldSize() > 1:
            startAlike(model.net)
        seedEverything(self.config['seed'], epoch)
        selfCritical = self._isSelfCritical(epoch)
        if selfCritical:
            self._setSelfCritical(epoch)
        entry = {'epoch': epoch, 'learning_rate': float(model.optimizer.param_groups[0]['lr'])}
        times = {}
        for mode, is_train in self.modelParam['modeSetups']:
            start = time.monotonic()
            result = self.run_epoch(mode, model, is_train, epoch)
            entry['reward' if mode == 'train' and selfCritical else f'{mode}_loss'] = result
            times[f'{MODES[mode]}_seconds'] = time.monotonic() - start
        model.scheduler.step()
        if not isMain():
            return
        start = time.monotonic()
        captions = validator.caption(model)
        try:
            entry.update(validator.score(captions))
        except (OSError, RuntimeError) as error:  # training is never lost to a scorer, nor to Java
            print(f'Epoch {epoch} has no scores. {error}')
        times['scoring_seconds'] = time.monotonic() - start
        self._save(entry, {'epoch': epoch, **times, 'device': describeDevice(model.device)},
                   captions)
        self._print(entry, times)

    def _save(self, entry, times, captions):
        folder, epoch = runFolder(self.modelParam), entry['epoch']
        if wasMoved(folder):  # a new run may have begun there
            raise UserError(f'{folder} was moved or removed while this run trained in it. So the '
                            f'run ends, without epoch {epoch}.')
        history = self.model.history
        history.append(entry)
        writeJson(os.path.join(folder, f'captions_epoch{epoch}.json'), captions)
        writeJson(os.path.join(folder, 'history.json'), history)
        self.times = [earlier for earlier in self.times if earlier['epoch'] < epoch] + [times]
        writeJson(os.path.join(folder, 'times.json'), self.times)  # which a seed does not repeat
        self.plotter.plot(history)
        # last: an epoch with a checkpoint has written all its files, any other is repeated
        self.saveRestorer.save(epoch, -entry.get('meteor', -math.inf), self.model)
        self.model.start_epoch = epoch

    def _print(self, entry, times):
        parts = [f"epoch {entry['epoch']}/{self.epochs}"]
        parts += [f"{key.replace('_', ' ')} {entry[key]:.3f}"
                  for key in ('train_loss', 'reward', 'val_loss') if key in entry]
        if 'meteor' in entry:
            parts.append(f"METEOR {entry['meteor']:.4f}  BLEU-4 {entry['bleu_4']:.4f}")
        print('  '.join([*parts, f'{sum(times.values()):.0f} s']))

    def _printEnd(self, best):
        print(f'Curves: {self.plotter.path}\nThe best METEOR is that of epoch {best}; '
              'Validate_task*.py validates its model.')
        if self._isSelfCritical(self.epochs) and not self._isSelfCritical(best):
            print('The self-critical epochs came later, so this model has not learned from them. '
                  "To validate the last epoch, set modelParam['restoreModelLast'] = 1 there.")

    def _isSelfCritical(self, epoch):
        return self.modelParam['numbOfEpochs'] < epoch <= self.epochs

    def _setSelfCritical(self, epoch):
        """Counts n-grams for the rewards once, and starts the optimizer anew for these epochs."""
        self.rewards = self.rewards or fromMain(self.dataLoader.captionRewards)
        optimizer = self.model.optimizer
        if not self._isSelfCritical(epoch - 1):
            optimizer.state.clear()
        for group in optimizer.param_groups:
            group['lr'] = LEARNING_RATE

    def run_epoch(self, mode, model, is_train, cur_epoch):
        """One pass over the images, teacher-forced; self-critical training samples captions.

        Args:
            mode: 'train', with optimizer steps, or 'val', without.
            model: the `Model`.
            is_train: not used: both modes are teacher-forced, as a free run has no loss.
            cur_epoch: integer, which decides the order of the images and the captions drawn.

        Returns:
            The loss per word, in nats; the mean reward in self-critical training.

        Raises:
            UserError: the loss is not finite.
        """
        loader = self.dataLoader.myDataDicts[mode]
        batches = progressBar(loader, f'epoch {cur_epoch} {mode}', self.modelParam)
        if mode == 'val':
            return teacherForcedLoss(model, batches)
        selfCritical = self._isSelfCritical(cur_epoch)
        model.net.train(not selfCritical)  # captions are sampled and learned without dropout
        if selfCritical:
            batches = RewardedBatches(batches, model, loader, self.rewards)
        loader.batch_sampler.epoch = cur_epoch
        total, words = torch.zeros((), dtype=torch.float64, device=model.device), 0.0
        for number, batch in enumerate(batches, start=1):
            # per process, as gradients are averaged
            words_of_batch = averaged(float(batch['yWeights'].sum()))
            words += words_of_batch
            for loss in model.learn(batch, words_of_batch):
                total += loss
            if number % BATCHES_BETWEEN_CHECKS[model.device.type] == 0 or number == len(loader):
                finite(total.item(), batch['imgPaths'], f'epoch {cur_epoch}, batch {number}')
                batches.set_postfix_str(f'loss {total.item() / words:.3f}', refresh=False)
        if selfCritical:
            return averaged(batches.total) / averaged(batches.number)
        return averaged(total.item()) / words
