"""The runs that the report and the hand-in are about: for each task that on the scripts' data."""
import importlib
import os

from report import submitter
from utils.data.dataFolder import dataDir
from utils.files.atomic import readJson, writeJson
from utils.files.errors import UserError
from utils.metrics import BLEU, METEOR, tokenize
from utils.saverRestorer import DELIVERED, newestCheckpoint, readCheckpoint
from utils.scripts.start import prepare

TASKS = (1, 2, 3, 4)
SAME = 0.002  # scores that differ by no more are the same
UNNAMED = 'Your Name'  # the submitter where nobody has put a name yet
COUNTED = 'running_mean', 'running_var', 'num_batches_tracked', 'feature_mean'  # not trained


class Run:
    """A run's folder, or that of the model delivered from it.

    Attributes:
        folder, name, checkpoint (of the best epoch), epoch, history, times: as training left them;
            the last two may be empty.
        trainedBy: the name of who has trained it, or `UNNAMED`.
        scores, details: as validation of this checkpoint left them, else empty.
        halves: the held-out scores, see `scoreHalves`, or empty.
    """

    def __init__(self, folder):
        self.folder = folder
        self.name = os.path.basename(os.path.normpath(folder))
        self.checkpoint = readCheckpoint(newestCheckpoint(folder, 'best'))
        self.epoch = self.checkpoint['epoch']
        self.trainedBy = self.checkpoint.get('trainedBy', UNNAMED)
        self.history = self.read('history.json', [])
        self.times = self.read('times.json', [])
        self.scores = self.read('scores_validation.json', {})
        self.details = self.read('details_validation.json', [])
        if self.scores.get('epoch') != self.epoch:
            self.scores, self.details = {}, []
        self.halves = self.read('halves.json', {})
        if self.halves.get('of') != self.meteorOfEpochs():
            self.halves = {}  # the run has gone on since

    def read(self, name, default):
        """The value in a JSON file of the folder, or `default` where there is no such file."""
        return readJson(os.path.join(self.folder, name), default)

    def meteorOfEpochs(self):
        """Pairs of epoch and METEOR, of the epochs that were scored."""
        return [[entry['epoch'], entry['meteor']] for entry in self.history if 'meteor' in entry]

    def numberOfParameters(self):
        """How many values training changes."""
        weights = self.checkpoint['model_state_dict'].items()
        return sum(tensor.numel() for name, tensor in weights if not name.endswith(COUNTED))

    def isOwn(self):
        """Whether the submitter has trained it: on this machine, or delivered under this name."""
        return (not self.folder.startswith(DELIVERED)
                or self.trainedBy == submitter.SUBMITTER != UNNAMED)

    def state(self):
        """Who has trained it, and whether it has been validated, in words."""
        if submitter.SUBMITTER == UNNAMED:
            words = 'put your name into report/submitter.py if you have trained it'
        elif self.isOwn():
            words = f'trained by {submitter.SUBMITTER}'
        elif self.trainedBy == UNNAMED:
            words = 'delivered with the package, not trained by the submitter'
        else:
            words = f'trained by {self.trainedBy}, not trained by the submitter'
        if not self.scores:
            words += '; not validated yet, which python Validate_task*.py does'
        return words

    def scoreHalves(self):
        """Scores on images that did not choose the epoch: one half chooses, the other is scored.

        Every second image, in order of file names, chooses. The result is kept in halves.json: a
        dict of `epoch` (the chosen one), `meteor` and `bleu_4` (of the other half), and `of` (the
        METEOR of all epochs then). There is none without validation or captions of the epochs.
        """
        captions = {(entry['epoch'], result['image_id']): [result['caption']]
                    for entry in self.history for result
                    in self.read(f"captions_epoch{entry['epoch']}.json", [])}
        if self.halves or not captions or not self.details:
            return
        references = tokenize({image['image_id']: image['references'] for image in self.details})
        captions = tokenize(captions)

        def score(scorer, half, epoch):
            return scorer.compute_score({image: references[image] for image in half},
                                        {image: captions[epoch, image] for image in half})[0]

        choosing, scored = list(references)[::2], list(references)[1::2]
        with METEOR() as meteor:
            chosen = max(sorted({epoch for epoch, _ in captions}),
                         key=lambda epoch: score(meteor, choosing, epoch))
            self.halves = {'epoch': chosen, 'meteor': score(meteor, scored, chosen),
                           'bleu_4': float(score(BLEU(), scored, chosen)[3]),
                           'of': self.meteorOfEpochs()}
        writeJson(os.path.join(self.folder, 'halves.json'), self.halves)


def validationScript(task):
    """The module of a task's validation script, and its modelParam as this machine has it.

    Raises:
        UserError: the data folder does not exist.
    """
    script = importlib.import_module(f'Validate_task{task}')
    return script, prepare(script.modelParam)


def ownAndDelivered(modelParam):
    """The run that was trained on this machine, and the one delivered; None where there is none."""
    folders = [os.path.join(folder, modelParam['modelName'])
               for folder in (modelParam['modelsDir'], DELIVERED)]
    return [Run(folder) if newestCheckpoint(folder, 'best') else None for folder in folders]


def isUpToDate(delivered, own):
    """Whether what has been delivered, a `Run` or None, is the submitter's run on this machine."""
    return (bool(delivered) and delivered.history == own.history
            and delivered.trainedBy == submitter.SUBMITTER)


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
    for run in runs.values():
        run.scoreHalves()
    return runs


def stateOf(runs):
    """Sentences on a dict task → `Run`: who has trained the models, and what is missing."""
    sentences = []
    for task in TASKS:
        state = runs[task].state() if task in runs else 'not trained on these data'
        sentences.append(f'Task {task}: {state}.')
    return sentences
