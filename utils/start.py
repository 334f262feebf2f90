"""What every script does first and around everything: find data and Java, announce them, end in sentences."""
import errno
import os
import signal
import sys
import tempfile

import torch

from utils.dataFolder import dataName, isDemo, provideData
from utils.distributed import isFirstToEnd, isMain, joined, mainFirst, worldSize
from utils.files import UserError, inProject, removePartialFiles, runFolder
from utils.java import JavaError, findJava
from utils.model import describeDevice
from utils.runLock import lockFolder
from utils.settings import checkSettings

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None

GOES_ON = 'What was finished is kept; started again, it goes on from there.'
OPEN_FILES = 1024  # that a script may have at once; ten loader processes with their batches take about half
LOST_PROCESS = 'closed by peer', 'reset by peer', 'broken pipe', 'pair closure', 'nccl'  # in what gloo and nccl say then


def prepare(modelParam, config=None):
    """The parameters as this machine has them: absolute folders, the data in place, the model's name ending in theirs.
    Processes beside the main one are left with the training images.

    Args:
        modelParam: dict.
        config: dict or None, which is only checked.

    Raises:
        UserError: a setting is impossible, the data folder does not exist, this task is being trained already, or several
            processes are to validate.
        JavaError: there is no Java, which the scores need.
    """
    checkSettings(modelParam, config)
    if modelParam['inference'] and worldSize() > 1:
        raise UserError('Only training is shared between processes. Start this script by python instead of torchrun.')
    for variable in ('TMPDIR', 'TEMP', 'TMP'):  # TMP=./tmp may name a folder that nobody has made yet
        if os.environ.get(variable):
            os.makedirs(os.environ[variable], exist_ok=True)
    tempfile.tempdir = None
    allowOpenFiles()
    if isMain():
        findJava()
    data_dir = inProject(modelParam['data_dir'])
    with mainFirst():
        provideData(data_dir)
    name = modelParam['modelName'].rstrip('/\\')
    parameters = {**modelParam, 'data_dir': data_dir, 'modelName': os.path.join(f'{name}_{dataName(data_dir)}', ''),
                  **{key: inProject(modelParam[key]) for key in ('modelsDir', 'img_dir')}}
    if not isMain():
        return {**parameters, 'modeSetups': [pair for pair in modelParam['modeSetups'] if pair[0] == 'train']}
    if not modelParam['inference']:
        lockFolder(runFolder(parameters))
        removePartialFiles(runFolder(parameters))
    return parameters


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


def runScript(main):
    """Runs a script's `main`; what the user can mend ends it as a sentence instead of a stack trace, and so do Ctrl-C, the
    server's SIGTERM, and SIGHUP where nohup does not ignore it."""
    for name in ('SIGTERM', 'SIGHUP'):
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:
            signal.signal(getattr(signal, name), signal.default_int_handler)  # raises KeyboardInterrupt, as Ctrl-C does
    try:
        with joined():
            main()
    except (UserError, JavaError) as error:
        _end(error)
    except KeyboardInterrupt:
        _end(f'Stopped. {GOES_ON}')
    except (OSError, RuntimeError) as error:
        advice = _advice(error)
        if not advice:
            raise
        _end(f'{advice} {GOES_ON}\n({error})')


def _end(sentence):
    """Ends this process by a sentence, or without one where another process of this training has said why all end."""
    sys.exit(f'\n{sentence}' if isFirstToEnd() else 1)


def _advice(error):
    """What to do about an error that the system, a GPU or a loader process gave; '' where it is none that a user can mend."""
    text = str(error).lower()
    if 'cuda' in text and ('out of memory' in text or 'alloc_failed' in text):
        return _memoryOfGpu()
    if 'killed by signal: terminated' in text:  # torchrun and batch systems end a process together with those it has started
        return 'Stopped.'
    if 'dataloader worker' in text and ('exited unexpectedly' in text or 'killed by signal' in text):
        return ("A process that reads files was ended from outside, most likely for lack of memory. Set "
                "modelParam['numbOfCPUThreadsUsed'] lower; 0 reads without further processes.")
    if worldSize() > 1 and any(sign in text for sign in LOST_PROCESS):
        return 'Another process of this training, or the connection to it, has ended.'
    number = getattr(error, 'errno', None)
    if number in (errno.EMFILE, errno.ENFILE) or 'too many open files' in text or 'ancdata' in text:
        return (f"Too many files are open. Allow {OPEN_FILES} (ulimit -n {OPEN_FILES}) or set "
                "modelParam['numbOfCPUThreadsUsed'] lower; 0 needs fewest.")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return 'The disk is full, or your quota is reached. Make room.'
    if number in (errno.EACCES, errno.EPERM, errno.EROFS):
        return 'The scripts write into their own folder: copy the project to a place where you may write.'
    return ''


def _memoryOfGpu():
    """What to do about a full GPU, with its free memory and this process's share."""
    device = torch.cuda.current_device()
    held, most = torch.cuda.memory_reserved(device), torch.cuda.max_memory_reserved(device)
    free, total = torch.cuda.mem_get_info(device)
    return (f'GPU {device} is full: of {total / 2 ** 20:,.0f} MiB {free / 2 ** 20:,.0f} are free, this process holds '
            f'{held / 2 ** 20:,.0f} and needed more than {most / 2 ** 20:,.0f}. Choose a free one (nvidia-smi shows them) by '
            "CUDA_VISIBLE_DEVICES, or set modelParam['batch_size'] lower.")
