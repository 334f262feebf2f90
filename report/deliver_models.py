"""Makes the models in report/models/, which are handed in, from the runs in storedModels/: weights of the best epoch,
history, times, and what validation says about just these weights.

    python report/deliver_models.py

Which data: utils/dataRoot.py. A delivered model of the same task and data is replaced; the runs stay as they are.
"""
import io
import os
import sys
import tempfile

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from report import submitter  # noqa: E402
from report.runs import (  # noqa: E402
    HALVES,
    HISTORY,
    SAME,
    TASKS,
    TIMES,
    UNNAMED,
    Run,
    deliveredRun,
    isUpToDate,
    ownRun,
    validationScript,
)
from utils.dataLoader import CHECKED_FILES  # noqa: E402
from utils.files.atomic import PARTIAL, writeAtomically, writeJson  # noqa: E402
from utils.metrics import METEOR  # noqa: E402
from utils.saverRestorer import DELIVERED  # noqa: E402
from utils.scripts.endings import runScript  # noqa: E402
from utils.validate import restoredModel  # noqa: E402
from utils.validate_metrics import validateCaptions  # noqa: E402

ONLY_FOR_TRAINING = ('optimizer_state_dict', 'scheduler_state_dict', 'scaler_state_dict', 'path')
SCORES = ('bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'meteor', 'rouge')  # that go from 0 to 1


def deliver(run, parameters, imageCaptionModel):
    """Makes the delivered model of a run: weights in half precision if all scores stay the same to `SAME`, else in single.

    Args:
        run: a `Run`.
        parameters: the validation script's modelParam, prepared.
        imageCaptionModel: the task's class.
    """
    os.makedirs(DELIVERED, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=os.path.dirname(DELIVERED)) as partial:
        # validated where it is made, so that its scores are those of the weights delivered
        parameters = {**parameters, 'modelsDir': partial, 'restoreModelLast': 0}
        folder = os.path.join(partial, run.name)
        os.makedirs(folder)
        writeJson(os.path.join(folder, HISTORY), run.history)
        writeJson(os.path.join(folder, TIMES), run.times)
        then = run.atEpoch()
        for dtype in (torch.float16, torch.float32):
            _saveWeights(run.checkpoint, dtype, folder)
            model, dataLoader = restoredModel({}, parameters, imageCaptionModel)
            scores = validateCaptions(model, parameters, model.config, dataLoader)
            change = max((abs(scores[key] - then[key]) for key in SCORES if key in then), default=0.0)
            if change <= SAME:
                break
        os.remove(os.path.join(folder, CHECKED_FILES.format('val')))
        _keepHalves(run, folder)
        target = os.path.join(DELIVERED, run.name)
        if os.path.exists(target):
            os.replace(target, os.path.join(partial, 'old'))
        os.replace(folder, target)
    print(f"{target}: epoch {run.epoch}, METEOR {scores['meteor']:.4f}, {str(dtype).split('.')[1]} weights; no score from 0 "
          f'to 1 differs from that of the run by more than {change:.4f}.', flush=True)


def _saveWeights(checkpoint, dtype, folder):
    """The checkpoint without what only training needs, with who has trained it."""
    weights = {name: tensor.to(dtype) if tensor.is_floating_point() else tensor
               for name, tensor in checkpoint['model_state_dict'].items()}
    slim = {key: value for key, value in checkpoint.items() if key not in ONLY_FOR_TRAINING}
    if submitter.SUBMITTER != UNNAMED:
        slim['trainedBy'] = submitter.SUBMITTER
    data = io.BytesIO()
    torch.save({**slim, 'model_state_dict': weights}, data)
    writeAtomically(os.path.join(folder, f"best_epoch{checkpoint['epoch']}.pt"), data.getbuffer())


def _keepHalves(run, folder):
    """The held-out scores, in place of the captions of all epochs from which they come."""
    run.details = Run(folder).details
    if run.details and not run.halves:
        with METEOR() as meteor:
            run.scoreHalves(meteor)
    if run.halves:
        writeJson(os.path.join(folder, HALVES), run.halves)


def deliverAll():
    """Delivers every run of this machine that has not been delivered as it is.

    Raises:
        UserError: the data folder does not exist, or a checkpoint cannot be read or does not fit.
    """
    for task in TASKS:
        script, parameters = validationScript(task)
        own, delivered = ownRun(parameters), deliveredRun(parameters)
        if own is None:
            print(f"Task {task}: nothing has been trained in {parameters['modelsDir']}; "
                  + (f'{delivered.folder} stays.' if delivered else 'there is no model to hand in.'))
        elif isUpToDate(delivered, own):
            print(f'Task {task}: {delivered.folder} is up to date.')
        else:
            deliver(own, parameters, script.ImageCaptionModel)


if __name__ == '__main__':
    runScript(deliverAll)
