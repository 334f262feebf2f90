"""What every script does first and around everything: find data and Java, announce them, end in sentences."""
import os
import signal
import sys
import tempfile

from utils.dataFolder import dataName, isDemo, provideData
from utils.files import UserError, inProject
from utils.java import JavaError, findJava
from utils.model import describeDevice
from utils.settings import checkSettings


def prepare(modelParam, config=None):
    """The parameters as this machine has them: absolute folders, the data in place, the model's name ending in theirs.

    Args:
        modelParam: dict.
        config: dict or None, which is only checked.

    Raises:
        UserError: a setting is impossible, or the data folder does not exist.
        JavaError: there is no Java, which the scores need.
    """
    checkSettings(modelParam, config)
    for variable in ('TMPDIR', 'TEMP', 'TMP'):  # TMP=./tmp may name a folder that nobody has made yet
        if os.environ.get(variable):
            os.makedirs(os.environ[variable], exist_ok=True)
    tempfile.tempdir = None
    findJava()
    data_dir = inProject(modelParam['data_dir'])
    provideData(data_dir)
    name = modelParam['modelName'].rstrip('/\\')
    return {**modelParam, 'data_dir': data_dir, 'modelName': os.path.join(f'{name}_{dataName(data_dir)}', ''),
            **{key: inProject(modelParam[key]) for key in ('modelsDir', 'img_dir')}}


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
        main()
    except (UserError, JavaError) as error:
        sys.exit(f'\n{error}')
    except KeyboardInterrupt:
        sys.exit('\nStopped. What was finished is kept; started again, training goes on after the last finished epoch.')
