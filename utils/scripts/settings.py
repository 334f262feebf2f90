"""Checks `config` and `modelParam` before anything is loaded, and names what is wrong in them."""
from utils.data.dataFolder import POOLED, UNPOOLED, dataDir
from utils.files.defaults import VALIDATION_CONFIG as BEAM
from utils.files.defaults import paramWithDefaults, withDefaults
from utils.files.errors import UserError
from utils.model import OPTIMIZERS
from utils.networks.learningRecipe import RECIPES
from utils.networks.precision import PRECISIONS


def _number(low, high=float('inf'), whole=False):
    def check(value):
        return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and low <= value <= high

    return check, f"{'a whole number' if whole else 'a number'} of {low} or more" if high == float('inf') else \
        f"{'a whole number' if whole else 'a number'} from {low} to {high}"


def _one_of(*values):
    return (lambda value: value in values), 'one of ' + ', '.join(map(repr, values))


def _name(value):
    return isinstance(value, str) and value.strip(' /\\.') != ''


def _milestones(value):
    return value is None or (isinstance(value, (list, tuple)) and all(_number(1, whole=True)[0](epoch) for epoch in value)
                             and list(value) == sorted(value))


def _modes(value):
    """`modeSetups` as a dict mode → is_train; None where it is no list of pairs of different modes."""
    pairs = isinstance(value, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 and pair[0] in ('train', 'val') for pair in value)
    return dict(value) if pairs and len(dict(value)) == len(value) else None


def _learning_rate(value):
    return isinstance(value, dict) and _number(0)[0](value.get('lr')) and value['lr'] > 0


def _cuda(value):
    return (isinstance(value, dict) and value.keys() == {'use_cuda', 'device_idx'} and isinstance(value['use_cuda'], bool)
            and _number(0, whole=True)[0](value['device_idx']))


SIZE = _number(1, whole=True)
FLAG = _one_of(0, 1)
FOLDER = (lambda value: isinstance(value, str) and value.strip() != ''), "a folder, such as 'storedModels/'"
# key → (whether a value is possible, what is)
CONFIG = {
    'optimizer': _one_of(*OPTIMIZERS),
    'learningRate': (_learning_rate, "a dictionary such as {'lr': 0.001} with a rate above 0"),
    'weight_decay': _number(0),
    'number_of_cnn_features': SIZE,
    'embedding_size': SIZE,
    'vocabulary_size': _number(4, whole=True),  # three marks and a word
    'truncated_backprop_length': SIZE,
    'hidden_state_sizes': SIZE,
    'num_rnn_layers': SIZE,
    'cellType': (_name, "a cell of the model's file, such as 'GRU'"),  # the network says which it knows
    'scheduler_milestones': (_milestones, 'a rising list of epochs such as [75, 90], or None'),
    'scheduler_factor': _number(0, 1),
    'attention': _one_of('assignment', 'content'),
    'attentionHeads': SIZE,
    'numberOfRegions': SIZE,
    'learningRecipe': _one_of(*RECIPES),
    'selfCriticalEpochs': _number(0, whole=True),
    'precision': _one_of(*PRECISIONS),
    'featurepathstub': _one_of(POOLED, UNPOOLED),
    'seed': _number(0, whole=True),
}
VALIDATION_CONFIG = {'beamSize': SIZE}  # the rest is the checkpoint's
MODEL_PARAM = {
    'batch_size': SIZE,
    'cuda': (_cuda, "a dictionary such as {'use_cuda': True, 'device_idx': 0}"),
    'numbOfCPUThreadsUsed': _number(0, whole=True),
    'data_dir': FOLDER,
    'img_dir': FOLDER,
    'modelsDir': FOLDER,
    'modelName': (_name, "a folder's name, such as 'task1_rnn/'"),
    'restoreModelLast': FLAG,
    'restoreModelBest': FLAG,
    'inNotebook': FLAG,
    'inference': FLAG,
}
TRAINING_PARAM = {
    'numbOfEpochs': SIZE,
    'modeSetups': (lambda value: _modes(value) == {'train': True, 'val': True},
                   "[['train', True], ['val', True]]: an epoch learns, then validates"),
}
VALIDATION_PARAM = {
    'trainingScript': (lambda value: isinstance(value, str), 'a file name'),
    'modeSetups': (lambda value: 'val' in (_modes(value) or ()), "a list such as [['val', False]], with 'val' in it"),
}


def checkSettings(modelParam, config=None):
    """Checks the dictionaries at the top of a script.

    Args:
        modelParam: dict.
        config: dict, in a validation script only what is not the checkpoint's; or None for no configuration.

    Returns:
        modelParam, config, with the defaults of the keys that they lack.

    Raises:
        UserError: a key is unknown, or missing and without a default, or a value impossible; all of them are named.
    """
    inference = modelParam.get('inference')
    rules = {'modelParam': {**MODEL_PARAM, **(VALIDATION_PARAM if inference else TRAINING_PARAM)},
             'config': VALIDATION_CONFIG if inference else CONFIG}
    complete = {'modelParam': {'data_dir': dataDir(), **paramWithDefaults(modelParam)}}
    if config is not None:
        complete['config'] = {**BEAM, **config} if inference else withDefaults(config)
    faults = []
    for name, values in complete.items():
        known = rules[name]
        faults += [f'{name}[{key!r}] is not a key; known are {", ".join(known)}' for key in values if key not in known]
        faults += [f'{name}[{key!r}] is missing' for key in known if key not in values]
        faults += [f'{name}[{key!r}] is {values[key]!r}, but must be {what}'
                   for key, (possible, what) in known.items() if key in values and not possible(values[key])]
    if faults:
        raise UserError('The settings at the top of the script cannot be used: ' + '; '.join(faults) + '.')
    return complete['modelParam'], complete.get('config')
