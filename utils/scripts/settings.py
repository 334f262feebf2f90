"""Checks `config` and `modelParam` before anything is loaded, and names what is wrong in them."""
from utils.files.errors import UserError
from utils.model import OPTIMIZERS
from utils.networks.learningRecipe import RECIPES


def _number(low, high=float('inf'), whole=False):
    def check(value):
        return isinstance(value, int if whole else (int, float)) and not isinstance(value, bool) and low <= value <= high

    return check, f"{'a whole number' if whole else 'a number'} of {low} or more" if high == float('inf') else \
        f"{'a whole number' if whole else 'a number'} from {low} to {high}"


def _one_of(*values):
    return (lambda value: value in values), 'one of ' + ', '.join(map(repr, values))


def _folder():
    return (lambda value: isinstance(value, str) and value.strip(' /\\.') != ''), "a folder, such as 'storedModels/'"


def _milestones(value):
    return (isinstance(value, (list, tuple)) and all(_number(1, whole=True)[0](epoch) for epoch in value)
            and list(value) == sorted(value))


def _modes(value):
    return (isinstance(value, (list, tuple)) and all(isinstance(pair, (list, tuple)) and len(pair) == 2 and
                                                    pair[0] in ('train', 'val') for pair in value)
            and 'val' in [pair[0] for pair in value])


def _learning_rate(value):
    return isinstance(value, dict) and _number(0)[0](value.get('lr')) and value['lr'] > 0


def _cuda(value):
    return (isinstance(value, dict) and value.keys() == {'use_cuda', 'device_idx'} and isinstance(value['use_cuda'], bool)
            and _number(0, whole=True)[0](value['device_idx']))


SIZE = _number(1, whole=True)
FLAG = _one_of(0, 1)
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
    'cellType': _one_of('RNN', 'GRU', 'LSTM'),
    'scheduler_milestones': (_milestones, 'a rising list of epochs such as [75, 90]'),
    'scheduler_factor': _number(0, 1),
    'learningRecipe': _one_of(*RECIPES),
    'featurepathstub': _one_of('detectron2_lim10maxfeatures', 'detectron2_lim10features'),
    'seed': _number(0, whole=True),
}
VALIDATION_CONFIG = {'beamSize': SIZE}  # the rest is the checkpoint's
MODEL_PARAM = {
    'batch_size': SIZE,
    'cuda': (_cuda, "a dictionary such as {'use_cuda': True, 'device_idx': 0}"),
    'numbOfCPUThreadsUsed': _number(0, whole=True),
    'numbOfEpochs': SIZE,
    'data_dir': _folder(),
    'img_dir': _folder(),
    'modelsDir': _folder(),
    'modelName': _folder(),
    'restoreModelLast': FLAG,
    'restoreModelBest': FLAG,
    'modeSetups': (_modes, "a list such as [['train', True], ['val', True]], with 'val' in it"),
    'inNotebook': FLAG,
    'inference': FLAG,
    'trainingScript': (lambda value: isinstance(value, str), 'a file name'),
}
ONLY_TRAINING, ONLY_VALIDATION = {'numbOfEpochs'}, {'trainingScript'}


def checkSettings(modelParam, config=None):
    """Checks the dictionaries at the top of a script.

    Args:
        modelParam: dict.
        config: dict, in a validation script only what is not the checkpoint's; or None for no configuration.

    Raises:
        UserError: a key is unknown or missing, or a value impossible; all of them are named.
    """
    unused = ONLY_TRAINING if modelParam.get('inference') else ONLY_VALIDATION
    known = {'modelParam': {key: rule for key, rule in MODEL_PARAM.items() if key not in unused},
             'config': VALIDATION_CONFIG if modelParam.get('inference') else CONFIG}
    faults = []
    for name, values in (('modelParam', modelParam), ('config', config)):
        if values is None:
            continue
        rules = known[name]
        faults += [f'{name}[{key!r}] is not a key; known are {", ".join(rules)}' for key in values if key not in rules]
        faults += [f'{name}[{key!r}] is missing' for key in rules if key not in values]
        faults += [f'{name}[{key!r}] is {values[key]!r}, but must be {what}'
                   for key, (possible, what) in rules.items() if key in values and not possible(values[key])]
    if faults:
        raise UserError('The settings at the top of the script cannot be used: ' + '; '.join(faults) + '.')
