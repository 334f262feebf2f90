"""Makes the models to hand in, in report/models/, from the runs in storedModels/.

A delivered model is the best epoch's weights with history, times, scores and captions of just
these weights. One of the same task and data is replaced; the runs stay as they are.
"""
import os
import tempfile

from report import submitter
from report.runs import TASKS, isUpToDate, ownAndDelivered, validationScript
from utils.files.ownFiles import PARTIAL, runFolder, writeAtomically, writeJson
from utils.saverRestorer import DELIVERED, checkpointBytes
from utils.validate import restoredModel
from utils.validate_metrics import validateCaptions

ONLY_FOR_TRAINING = 'optimizer_state_dict', 'scaler_state_dict', 'path'


def deliver(run, modelParam, imageCaptionModel):
    """Makes the delivered model of a run, with weights in half precision, and validates it.

    Args:
        run: a `Run`.
        modelParam: the validation script's, as `prepare` returns it.
        imageCaptionModel: the task's class.
    """
    delivered = {key: value for key, value in run.checkpoint.items()
                 if key not in ONLY_FOR_TRAINING}
    weights = {name: tensor.half() if tensor.is_floating_point() else tensor
               for name, tensor in run.checkpoint['model_state_dict'].items()}
    delivered.update(model_state_dict=weights, trainedBy=submitter.SUBMITTER)
    target = os.path.join(DELIVERED, run.name)
    os.makedirs(DELIVERED, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=PARTIAL, dir=os.path.dirname(DELIVERED)) as partial:
        modelParam = {**modelParam, 'modelsDir': partial, 'restoreModelLast': 0}
        folder = runFolder(modelParam)
        path = os.path.join(folder, f'best_epoch{run.epoch}.pt')
        writeAtomically(path, checkpointBytes(delivered))
        model, dataLoader = restoredModel(modelParam, imageCaptionModel)
        scores = validateCaptions(model, modelParam, model.config, dataLoader)
        writeJson(os.path.join(folder, 'history.json'), run.history)
        writeJson(os.path.join(folder, 'times.json'), run.times)
        replaced = os.path.join(partial, 'replaced')
        try:
            if os.path.exists(target):
                os.replace(target, replaced)
            os.replace(folder, target)
        finally:
            if os.path.exists(replaced) and not os.path.exists(target):
                os.replace(replaced, target)
    print(f"{target}: epoch {run.epoch}, weights in half precision, METEOR {scores['meteor']:.4f}.")


def deliverAll():
    """Delivers every run of this machine that has not been delivered as it is.

    Raises:
        UserError: the data folder does not exist, or a checkpoint cannot be read or does not fit.
    """
    for task in TASKS:
        script, modelParam = validationScript(task)
        own, delivered = ownAndDelivered(modelParam)
        if own and isUpToDate(delivered, own):
            print(f'Task {task}: {delivered.folder} is up to date.')
        elif own:
            deliver(own, modelParam, script.ImageCaptionModel)
        else:
            rest = f'{delivered.folder} stays' if delivered else 'there is no model to hand in'
            print(f"Task {task}: nothing has been trained in {modelParam['modelsDir']}; {rest}.")
