"""The runs to report and hand in: for each task the one on the scripts' data."""
import importlib
import os

from report import submitter
from utils.data.dataFolder import dataDir
from utils.files.errors import UserError
from utils.files.ownFiles import readJson
from utils.saverRestorer import DELIVERED, newestCheckpoint, readCheckpoint
from utils.scripts.start import prepare

TASKS = 1, 2, 3, 4
SAME = 0.002  # scores that differ by no more are the same
UNNAMED = 'Your Name'  # the submitter where nobody has put a name yet
NOT_TRAINED = 'running_mean', 'running_var', 'num_batches_tracked'


class Run:
    """A run's folder, or that of the model delivered from it.

    Attributes:
        folder, name, checkpoint (of the best epoch), epoch, history, times: as training left them;
            the last two may be empty.
        trainedBy: who trained a delivered model; 'the package' where no name is stored.
        scores, details: as validation of this checkpoint left them, else empty.
    """

    def __init__(self, folder):
        self.folder = folder
        self.name = os.path.basename(os.path.normpath(folder))
        self.checkpoint = readCheckpoint(newestCheckpoint(folder, 'best'))
        self.epoch = self.checkpoint['epoch']
        self.trainedBy = self.checkpoint.get('trainedBy', 'the package')
        self.history = self.read('history.json', [])
        self.times = self.read('times.json', [])
        self.scores = self.read('scores_validation.json', {})
        self.details = self.read('details_validation.json', [])
        if self.scores.get('epoch') != self.epoch:
            self.scores, self.details = {}, []

    def read(self, name, default):
        """The value in a JSON file of the folder, or `default` where there is no such file."""
        return readJson(os.path.join(self.folder, name), default)

    def numberOfParameters(self):
        """How many values training changes."""
        weights = self.checkpoint['model_state_dict'].items()
        return sum(tensor.numel() for name, tensor in weights if not name.endswith(NOT_TRAINED))

    def isOwn(self):
        """Whether the submitter has trained it: on this machine, or delivered under this name."""
        return not self.folder.startswith(DELIVERED) or self.trainedBy == submitter.SUBMITTER

    def state(self):
        """Who has trained it, and whether it has been validated, in words."""
        words = f'from {self.trainedBy}, not trained by the submitter'
        if self.isOwn():
            name = submitter.SUBMITTER
            words = 'trained here' if name == UNNAMED else f'trained by {name}'
        if not self.scores:
            words += '; not validated yet, which python Validate_task*.py does'
        return words


def validationScript(task):
    """The module of a task's validation script, and its modelParam as this machine has it.

    Raises:
        UserError: the data folder does not exist.
    """
    script = importlib.import_module(f'Validate_task{task}')
    return script, prepare(script.modelParam)[0]


def ownAndDelivered(modelParam):
    """The run that was trained on this machine, and the one delivered; None where there is none."""
    folders = [os.path.join(folder, modelParam['modelName'])
               for folder in (modelParam['modelsDir'], DELIVERED)]
    return [Run(folder) if newestCheckpoint(folder, 'best') else None for folder in folders]


def isUpToDate(delivered, own):
    """Whether what has been delivered, a `Run` or None, is the submitter's run on this machine."""
    return (bool(delivered) and delivered.history == own.history
            and delivered.epoch == own.epoch and delivered.trainedBy == submitter.SUBMITTER)


def runsOfTasks():
    """For each task its run: the one trained here, else the delivered one.

    Where the delivered one is the one trained here, it is taken: the scores are those of its
    weights.

    Returns:
        dict task → `Run`, of at least one task.

    Raises:
        UserError: there is no data folder, no run on these data, or a checkpoint cannot be read.
    """
    runs = {}
    for task in TASKS:
        own, delivered = ownAndDelivered(validationScript(task)[1])
        run = own if own and not isUpToDate(delivered, own) else delivered
        if run:
            runs[task] = run
    if not runs:
        raise UserError('There is nothing to report yet: no model has been trained on the data in '
                        f'{dataDir()}, and none was delivered for them. Train one first, for '
                        'example: python Exercise_Train_task1.py')
    return runs


def stateOf(runs):
    """Sentences on a dict task → `Run`: who has trained the models, and what is missing."""
    unnamed = submitter.SUBMITTER == UNNAMED
    sentences = ['Put your name into report/submitter.py.'] if unnamed else []
    for task in TASKS:
        state = runs[task].state() if task in runs else 'not trained on these data'
        sentences.append(f'Task {task}: {state}.')
    return sentences
