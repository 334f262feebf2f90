"""What a key that is left out of `config` or `modelParam` means: the course's values, and this project's for its own keys.

Without a default, and so required, is what tells the tasks apart: `cellType`, `num_rnn_layers`, `featurepathstub`, `modelName`.
"""
import copy

CONFIG = {
    'optimizer': 'adamW',
    'learningRate': {'lr': 0.001},
    'weight_decay': 1e-5,
    'number_of_cnn_features': 2048,
    'embedding_size': 300,
    'vocabulary_size': 10000,
    'truncated_backprop_length': 25,
    'hidden_state_sizes': 512,
    'scheduler_milestones': [75, 90],
    'scheduler_factor': 0.2,
    'attention': 'assignment',
    'attentionHeads': 1,
    'numberOfRegions': 10,
    'learningRecipe': 'assignment',
    'selfCriticalEpochs': 0,
    'precision': 'float32',
    'seed': 1,
}
VALIDATION_CONFIG = {'beamSize': 3}
MODEL_PARAM = {
    'batch_size': 128,
    'cuda': {'use_cuda': True, 'device_idx': 0},
    'numbOfCPUThreadsUsed': 10,
    'img_dir': 'lossImages/',
    'modelsDir': 'storedModels/',
    'inNotebook': False,
    'inference': False,
    'restoreModelLast': 0,
}
TRAINING_PARAM = {'numbOfEpochs': 99, 'restoreModelBest': 0, 'modeSetups': [['train', True], ['val', True]]}
VALIDATION_PARAM = {'restoreModelBest': 1, 'modeSetups': [['val', False]]}


def allEpochs(modelParam, config):
    """The number of epochs of a training, those of self-critical learning included."""
    return modelParam['numbOfEpochs'] + config['selfCriticalEpochs']


def withDefaults(config):
    """The configuration of a training or of a checkpoint with the defaults of the keys that it lacks."""
    return {**copy.deepcopy(CONFIG), **config}


def paramWithDefaults(modelParam):
    """`modelParam` with the defaults of the keys that it lacks, of a validation where its `inference` says so."""
    of_script = VALIDATION_PARAM if modelParam.get('inference') else TRAINING_PARAM
    return {**copy.deepcopy({**MODEL_PARAM, **of_script}), **modelParam}
