"""What every script does first: check its settings, find data and Java, load data and model."""
import os

from utils.data.dataFolder import DEMO_ROOT, MODES, SET_ROOT, dataName, isDemo
from utils.dataLoader import DataLoaderWrapper
from utils.demo.demoData import makeDemoData
from utils.files.errors import UserError
from utils.files.ownFiles import inProject, lockFolder, removePartialFiles, runFolder
from utils.model import Model, describeDevice
from utils.processes.distributed import isMain, mainFirst, worldSize
from utils.processes.java import findJava
from utils.saverRestorer import SaverRestorer
from utils.scripts.settings import checkSettings


def prepare(modelParam, config=None):
    """Checks the settings, finds data and Java, and locks the run's folder for a training.

    Args:
        modelParam: dict.
        config: dict or None.

    Returns:
        modelParam with defaults filled in, absolute folders, and the data's name appended to the
        run's; in all processes of a training but the main one, with the training images alone.
        config with defaults filled in.

    Raises:
        UserError: a setting is impossible, the data folder does not exist, this task is being
            trained already, or several processes are to validate.
        JavaError: there is no Java, which the scores need.
    """
    modelParam, config = checkSettings(modelParam, config)
    if modelParam['inference'] and worldSize() > 1:
        raise UserError('Only training runs in several processes. Start this without torchrun.')
    if isMain():
        findJava()
    data_dir = inProject(modelParam['data_dir'])
    with mainFirst():
        if isDemo(data_dir):
            makeDemoData(DEMO_ROOT)
        elif not os.path.isdir(data_dir):
            raise UserError(f'The data folder {data_dir} does not exist. {SET_ROOT} '
                            "Or set DATA_ROOT to '' for the demo data.")
    name = modelParam['modelName'].rstrip('/\\')
    parameters = {**modelParam, 'data_dir': data_dir,
                  'modelName': os.path.join(f'{name}_{dataName(data_dir)}', ''),
                  'modelsDir': inProject(modelParam['modelsDir']),
                  'img_dir': inProject(modelParam['img_dir'])}
    if not isMain():
        parameters['modeSetups'] = [pair for pair in modelParam['modeSetups'] if pair[0] == 'train']
    elif not modelParam['inference']:
        lockFolder(runFolder(parameters))
        for folder in (runFolder(parameters), runFolder(parameters, 'img_dir'),
                       parameters['modelsDir']):
            removePartialFiles(folder)
    return parameters, config


def load(config, modelParam, imageCaptionModel):
    """Loads the data, and the model as its last run left it; prints which they are.

    Args:
        config: dict, that of `prepare` for a training, else the checkpoint's.
        modelParam: dict, as `prepare` returns it.
        imageCaptionModel: the class of the network.

    Returns:
        the `DataLoaderWrapper`, whose `config` has the data's sizes; the `Model`; its
        `SaverRestorer`.
    """
    dataLoader = DataLoaderWrapper(config, modelParam)
    sizes = dataLoader.config
    if modelParam['inference']:  # a network of the hand-out may have more words than the data
        sizes = {**sizes, 'vocabulary_size': config['vocabulary_size']}
    model = Model(sizes, modelParam, imageCaptionModel)
    images = ' and '.join(f'{len(loader.dataset):,} {MODES[mode]}'
                          for mode, loader in dataLoader.myDataDicts.items())
    device = describeDevice(model.device)
    if model.device.type == 'cpu' and modelParam['cuda']['use_cuda']:
        device += ' (no CUDA found)'
    print(f"Data: {modelParam['data_dir']}, {images} images. Device: {device}.")
    dataLoader.checkFiles()
    saveRestorer = SaverRestorer(dataLoader.config, modelParam)
    return dataLoader, saveRestorer.restore(model), saveRestorer
