"""What every script does first: check its settings, find data and Java, announce them."""
import os
import tempfile

from utils.data.dataFolder import dataName, isDemo, provideData
from utils.files.atomic import removePartialFiles
from utils.files.errors import UserError
from utils.files.project import inProject, runFolder
from utils.files.runLock import lockFolder
from utils.model import describeDevice
from utils.processes.distributed import isMain, mainFirst, worldSize
from utils.processes.java import findJava
from utils.processes.loaderProcesses import shortenSocketPaths
from utils.processes.progress import saidWhenLong
from utils.saverRestorer import findCheckpoint
from utils.scripts.settings import checkSettings

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

NOTHING_KEPT = 'It keeps nothing on the way; started again, it begins anew.'
BEGINS_AGAIN = 'No epoch was finished; started again, it begins with the first.'
GOES_ON = 'What was finished is kept; started again, it goes on from there.'
OPEN_FILES = 1024  # that a script may have at once; ten loader processes with their batches take about half

_parameters = None  # this process's, once it has prepared


def prepare(modelParam, config=None):
    """The parameters as this machine has them: nothing left out, absolute folders, the data in place, the model's name ending
    in theirs. Processes beside the main one are left with the training images.

    Args:
        modelParam: dict.
        config: dict or None, which is only checked.

    Raises:
        UserError: a setting is impossible, the data folder does not exist, this task is being trained already, or several
            processes are to validate.
        JavaError: there is no Java, which the scores need.
    """
    modelParam, _ = checkSettings(modelParam, config)
    if modelParam['inference'] and worldSize() > 1:
        raise UserError('Only training is shared between processes. Start this script by python instead of torchrun.')
    for variable in ('TMPDIR', 'TEMP', 'TMP'):  # TMP=./tmp may name a folder that nobody has made yet
        if os.environ.get(variable):
            os.makedirs(os.environ[variable], exist_ok=True)
    tempfile.tempdir = None
    shortenSocketPaths()
    allowOpenFiles()
    if isMain():
        with saidWhenLong('Looking for Java'):
            findJava()
    data_dir = inProject(modelParam['data_dir'])
    with mainFirst(), saidWhenLong('Drawing the demo data, once' if isDemo(data_dir) else 'Looking for the data'):
        provideData(data_dir)
    name = modelParam['modelName'].rstrip('/\\')
    parameters = {**modelParam, 'data_dir': data_dir, 'modelName': os.path.join(f'{name}_{dataName(data_dir)}', ''),
                  **{key: inProject(modelParam[key]) for key in ('modelsDir', 'img_dir')}}
    global _parameters
    _parameters = parameters
    if not isMain():
        return {**parameters, 'modeSetups': [pair for pair in modelParam['modeSetups'] if pair[0] == 'train']}
    if not modelParam['inference']:
        lockFolder(runFolder(parameters))
        removePartialFiles(runFolder(parameters))
    return parameters


def whatIsKept():
    """What a script that ends early has left, and what it does when it is started again."""
    if _parameters is None:  # a script that writes file by file
        return GOES_ON
    if _parameters['inference']:
        return NOTHING_KEPT
    return GOES_ON if findCheckpoint(_parameters, 'last') else BEGINS_AGAIN


def allowOpenFiles():
    """Raises the limit of open files to what the system allows; each batch from a loader process takes several."""
    if resource is not None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY and soft < OPEN_FILES:
            allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def announce(modelParam, dataLoader, model):
    """Prints which data, how many images, which device."""
    data_dir = modelParam['data_dir']
    names = {'train': 'training', 'val': 'validation'}
    images = ' and '.join(f'{len(loader.dataset):,} {names[mode]}' for mode, loader in dataLoader.myDataDicts.items())
    device = describeDevice(model.device)
    if model.device.type == 'cpu' and modelParam['cuda']['use_cuda']:
        device += ' (no CUDA found)'
    print(f"Data: {'built-in demo data' if isDemo(data_dir) else 'COCO layout'} in {data_dir}, {images} images. "
          f'Device: {device}.', flush=True)
