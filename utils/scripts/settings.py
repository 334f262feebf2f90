"""The keys of `config` and `modelParam`: their defaults and their possible values.

A new option takes one line in a table here, one in the scripts that show it, and the code that
uses it.
"""
import copy
import re

from utils.data.dataFolder import POOLED, UNPOOLED
from utils.files.errors import UserError
from utils.model import OPTIMIZERS
from utils.networks.learningRecipe import RECIPES
from utils.networks.precision import PRECISIONS

REQUIRED = object()  # in place of a default: the scripts must set it


def wholeNumber(low):
    """A check whether a value is a whole number of `low` or more, and what to say if it is not."""
    return (lambda value: type(value) is int and value >= low), f'a whole number of {low} or more'


def oneOf(*values):
    """A check whether a value is one of these, and what to say if it is not."""
    return (lambda value: value in values), 'one of ' + ', '.join(map(repr, values))


SIZE, COUNT = wholeNumber(1), wholeNumber(0)
FLAG = oneOf(0, 1)
FOLDER = (lambda value: value.strip() != ''), "a folder, such as 'storedModels/'"
TRAINING, VALIDATION = [['train', True], ['val', True]], [['val', False]]  # 'modeSetups'
# key → (default, (check, what is possible)); a check that raises an exception has failed
CONFIG = {
    'optimizer': ('adamW', oneOf(*OPTIMIZERS)),
    'learningRate': ({'lr': 0.001}, (lambda value: value['lr'] > 0,
                                     "a dictionary such as {'lr': 0.001} with a rate above 0")),
    'weight_decay': (1e-5, (lambda value: value >= 0, 'a number of 0 or more')),
    'number_of_cnn_features': (2048, SIZE),
    'embedding_size': (300, SIZE),
    'vocabulary_size': (10000, wholeNumber(4)),  # 3 marks, a word
    'truncated_backprop_length': (25, SIZE),
    'hidden_state_sizes': (512, SIZE),
    'num_rnn_layers': (REQUIRED, SIZE),
    'cellType': (REQUIRED, (lambda value: value.strip() != '', "a cell's name, such as 'GRU'")),
    'scheduler_milestones': ([75, 90],
                             (lambda value: value is None or isinstance(value, (list, tuple)) and
                              sorted(value) == list(value) and
                              all(epoch >= 1 and epoch % 1 == 0 for epoch in value),
                              'a rising list of epochs such as [75, 90], or None')),
    'scheduler_factor': (0.2, (lambda value: 0 <= value <= 1, 'a number from 0 to 1')),
    'attention': ('assignment', oneOf('assignment', 'content')),
    'attentionHeads': (1, SIZE),
    'numberOfRegions': (10, SIZE),
    'learningRecipe': ('assignment', oneOf(*RECIPES)),
    'selfCriticalEpochs': (0, COUNT),
    'precision': ('float32', oneOf(*PRECISIONS)),
    'featurepathstub': (REQUIRED, oneOf(POOLED, UNPOOLED)),
    'seed': (1, COUNT),
}
VALIDATION_CONFIG = {  # the rest is the checkpoint's
    'beamSize': (3, (lambda value: type(value) is int and 1 <= value <= 100,
                     'a whole number from 1 to 100')),
}
MODEL_PARAM = {
    'batch_size': (128, SIZE),
    'cuda': ({'use_cuda': True, 'device_idx': 0},
             (lambda value: type(value['use_cuda']) is bool and COUNT[0](value['device_idx']),
              "a dictionary such as {'use_cuda': True, 'device_idx': 0}")),
    'cudaGraphs': (True, FLAG),  # utils/networks/stepGraphs.py
    'numbOfCPUThreadsUsed': (10, COUNT),
    'numbOfEpochs': (99, SIZE),
    'data_dir': (REQUIRED, FOLDER),
    'img_dir': ('lossImages/', FOLDER),
    'modelsDir': ('storedModels/', FOLDER),
    'modelName': (REQUIRED, (re.compile(r'[^/\\]*[^/\\ .][^/\\]*[/\\]*').fullmatch,
                             "a folder's name, such as 'task1_rnn/'")),
    'modeSetups': (TRAINING, oneOf(TRAINING)),
    'restoreModelLast': (0, FLAG),
    'restoreModelBest': (0, FLAG),
    'inNotebook': (False, FLAG),
    'inference': (False, FLAG),
}
MODES_TO_VALIDATE = VALIDATION, oneOf(VALIDATION, TRAINING)


def allEpochs(modelParam, config):
    """The number of epochs of a training, those of self-critical learning included."""
    return modelParam['numbOfEpochs'] + config['selfCriticalEpochs']


def withDefaults(config, table=CONFIG):
    """The settings of a script or a checkpoint, with defaults for missing keys."""
    defaults = {key: default for key, (default, _) in table.items() if default is not REQUIRED}
    return {**copy.deepcopy(defaults), **config}


def checkSettings(modelParam, config=None):
    """Checks the dictionaries at the top of a script.

    Args:
        modelParam: dict.
        config: dict, in a validation script only what is not the checkpoint's; or None.

    Returns:
        modelParam, config, with the defaults of the keys that they lack.

    Raises:
        UserError: a key is unknown, or is missing and has no default, or a value is impossible;
            the message names all of them.
    """
    tables = {'modelParam': MODEL_PARAM, 'config': CONFIG}
    if modelParam.get('inference'):
        tables = {'modelParam': {**MODEL_PARAM, 'modeSetups': MODES_TO_VALIDATE},
                  'config': VALIDATION_CONFIG}
    settings, faults = {'modelParam': modelParam, 'config': config or {}}, []
    for name, table in tables.items():
        settings[name] = values = withDefaults(settings[name], table)
        faults += [f"{name}[{key!r}] is unknown; the keys are {', '.join(table)}"
                   for key in values if key not in table]
        faults += faultsIn(name, values, table)
    if faults:
        raise UserError(f"Settings at the top of the script cannot be used: {'; '.join(faults)}.")
    return settings['modelParam'], settings['config']


def faultsIn(name, values, table):
    """What is wrong with the values of a table's keys, one phrase for each."""
    faults = []
    for key, (_, (check, possible)) in table.items():
        if key not in values:
            faults.append(f'{name}[{key!r}] is missing')
            continue
        try:
            passed = check(values[key])
        except Exception:
            passed = False
        if not passed:
            faults.append(f'{name}[{key!r}] is {values[key]!r}, but must be {possible}')
    return faults
