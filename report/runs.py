"""What the runs have left, for the report and the hand-in: of each task the run on the data that the scripts use."""
import importlib
import os

import torch

from report import submitter
from utils.data.dataFolder import dataDir
from utils.files.atomic import writeJson
from utils.files.errors import UserError
from utils.files.runFiles import readRunFile
from utils.metrics import BLEU, METEOR, tokenize
from utils.saverRestorer import DELIVERED, newestCheckpoint, readCheckpoint
from utils.scripts.start import prepare

TASKS = (1, 2, 3, 4)
SAME = 0.002  # scores from 0 to 1 that differ by no more are the same
HISTORY, TIMES, HALVES = 'history.json', 'times.json', 'halves.json'
UNNAMED = 'Your Name'  # the submitter of a project in which nobody has put a name yet


class Run:
    """A run's folder, or that of the model delivered from it.

    Attributes:
        folder, name, checkpoint (of the best epoch), history, times: as the run left them; `times` may be empty.
        scores, details: as the validation script left them, None where it has not been run on this checkpoint.
        halves: what `scoreHalves` returns, None where that is not known.
    """

    def __init__(self, folder):
        self.folder = folder
        self.name = os.path.basename(os.path.normpath(folder))
        self.checkpoint = readCheckpoint(newestCheckpoint(folder, 'best'))
        self.epoch = self.checkpoint['epoch']
        self.history = self._read(HISTORY, []) or self.checkpoint.get('history', [])
        self.times = self._read(TIMES, [])
        self.scores = self._read('scores_validation.json', None)
        self.details = self._read('details_validation.json', None)
        then = self.atEpoch()
        if not (self.scores and self.details and self.scores['epoch'] == self.epoch
                and abs(self.scores['meteor'] - then.get('meteor', self.scores['meteor'])) <= SAME):
            self.scores = self.details = None  # another model's
        self.halves = self._read(HALVES, None)
        if self.halves and self.halves['of'] != self._scored():
            self.halves = None  # the run has gone on since

    def _read(self, name, default):
        return readRunFile(self.folder, name, default)

    def _scored(self):
        return [[entry['epoch'], entry['meteor']] for entry in self.history if 'meteor' in entry]

    def atEpoch(self):
        """The history's entry of the checkpoint's epoch; an empty one where another program has trained the model."""
        return next((entry for entry in self.history if entry['epoch'] == self.epoch), {})

    def best(self, key):
        """The history's entry with the highest `key`, the earliest of several; None where no epoch has it."""
        return max((entry for entry in self.history if key in entry), key=lambda entry: entry[key], default=None)

    def numberOfParameters(self):
        """How many values training changes: all of the network's but what is counted over images."""
        counted = ('running_mean', 'running_var', 'num_batches_tracked', 'feature_mean')
        return sum(tensor.numel() for name, tensor in self.checkpoint['model_state_dict'].items()
                   if not name.endswith(counted))

    def seconds(self):
        """What the epochs took: lists of seconds of training, of the validation loss, and of captions and scores. The second
        is None, and its seconds are in the first, where an epoch has them not apart."""
        apart = all('validation_seconds' in entry for entry in self.times)
        validation = [entry.get('validation_seconds', 0) for entry in self.times]
        training = [entry['training_seconds'] for entry in self.times]
        return (training if apart else [sum(pair) for pair in zip(training, validation)], validation if apart else None,
                [entry['scoring_seconds'] for entry in self.times])

    def bySubmitter(self):
        """Whether whoever hands in has trained it: on this machine, or delivered under this name."""
        return not self.folder.startswith(DELIVERED) or self.checkpoint.get('trainedBy') == submitter.SUBMITTER != UNNAMED

    def whose(self):
        """Who has trained it, in words."""
        if self.bySubmitter():
            return f'trained by {submitter.SUBMITTER}'
        by = self.checkpoint.get('trainedBy', UNNAMED)
        return f"{'delivered with the package' if by == UNNAMED else f'trained by {by}'}, not trained by the submitter"

    def isHalf(self):
        """Whether the weights are in half precision."""
        return any(tensor.dtype == torch.float16 for tensor in self.checkpoint['model_state_dict'].values())

    def scoreHalves(self, meteor):
        """Scores that no choice has flattered: one half of the validation images chooses the epoch, the other is scored.

        The images take turns, in order of their file names. Reads the captions that every epoch has left and the human
        ones in `details`; does nothing where either is missing, or where this is known already. The folder keeps the
        result as halves.json: a dict of `images` (how many choose, how many are scored), `choosing` (pairs of epoch and
        METEOR of the choosing half), `epoch` (the chosen one), `meteor`, `bleu_4` (of the other half), and `of`.

        Args:
            meteor: a `METEOR`.
        """
        if self.halves or not self.details:
            return
        names = {epoch: f'captions_epoch{epoch}.json' for epoch, _ in self._scored()}
        captions = {(epoch, result['image_id']): [result['caption']]
                    for epoch, name in names.items() for result in self._read(name, [])}
        images = [image['image_id'] for image in self.details]
        epochs = [epoch for epoch in names if all((epoch, image) in captions for image in images)]
        if not epochs or len(images) < 2:
            return
        references = tokenize({image['image_id']: image['references'] for image in self.details})
        captions = tokenize(captions)

        def score(scorer, half, epoch):
            return scorer.compute_score({image: references[image] for image in half},
                                        {image: captions[epoch, image] for image in half})[0]

        choosing, scored = images[::2], images[1::2]
        meteors = [[epoch, score(meteor, choosing, epoch)] for epoch in epochs]
        chosen = max(meteors, key=lambda pair: pair[1])[0]
        self.halves = {'images': [len(choosing), len(scored)], 'choosing': meteors, 'epoch': chosen,
                       'meteor': score(meteor, scored, chosen), 'bleu_4': float(score(BLEU(), scored, chosen)[3]),
                       'of': self._scored()}
        writeJson(os.path.join(self.folder, HALVES), self.halves)


def validationScript(task):
    """The module of a task's validation script, and its modelParam as this machine has it.

    Raises:
        UserError: the data folder does not exist.
    """
    script = importlib.import_module(f'Validate_task{task}')
    return script, prepare(script.modelParam)


def ownRun(parameters):
    """The run that a training script has left on this machine, or None."""
    return _runIn(os.path.join(parameters['modelsDir'], parameters['modelName']))


def deliveredRun(parameters):
    """The model delivered with the project, or None."""
    return _runIn(os.path.join(DELIVERED, parameters['modelName']))


def _runIn(folder):
    return Run(folder) if newestCheckpoint(folder, 'best') else None


def isUpToDate(delivered, own):
    """Whether what has been delivered, a `Run` or None, is the submitter's run on this machine."""
    return (bool(delivered) and delivered.history == own.history
            and delivered.checkpoint.get('trainedBy', UNNAMED) == submitter.SUBMITTER)


def runsOfTasks():
    """For each task its run: trained here if there is one, else the delivered one; what has been delivered just as it is
    here is read from there, with the scores of the weights delivered.

    Returns:
        dict task → `Run` or None, not all of them None.

    Raises:
        UserError: the data folder does not exist, there is no run on these data, or a checkpoint cannot be read.
    """
    runs = {}
    for task in TASKS:
        _, parameters = validationScript(task)
        own, delivered = ownRun(parameters), deliveredRun(parameters)
        runs[task] = own if own and not isUpToDate(delivered, own) else delivered
    if not any(runs.values()):
        raise UserError(f'There is nothing to report yet: no model has been trained on the data in {dataDir()}, and none was '
                        'delivered for them. Train one first, for example: python Exercise_Train_task1.py')
    missing = [run for run in runs.values() if run and run.details and not run.halves]
    if missing:
        with METEOR() as meteor:
            for run in missing:
                run.scoreHalves(meteor)
    return runs


def inWords(tasks):
    """'task 1', 'tasks 1 and 2', 'tasks 1, 2 and 3'."""
    *others, last = map(str, tasks)
    return f"tasks {', '.join(others)} and {last}" if others else f'task {last}'


def stateOf(runs):
    """Sentences on a dict task → `Run` or None: who has trained the models, and what they lack."""
    said = {}
    for task, run in runs.items():
        said.setdefault(run.whose() if run else 'not trained on these data', []).append(task)
        if run and not run.scores:
            said.setdefault('not validated since, which python Validate_task*.py does', []).append(task)
        elif run and not run.halves:
            said.setdefault('without held-out scores, for want of the captions of each epoch', []).append(task)
    return [f'{inWords(tasks).capitalize()}: {what}.' for what, tasks in said.items()]
