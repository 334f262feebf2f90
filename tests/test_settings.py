"""Wrong settings are named before anything is loaded; the scripts' own are right."""
import importlib

import pytest

from utils.files.defaults import withDefaults
from utils.files.errors import UserError
from utils.scripts.settings import checkSettings


@pytest.mark.parametrize('task', [1, 2, 3, 4])
def test_the_scripts_settings_are_possible(task):
    training = importlib.import_module(f'Exercise_Train_task{task}')
    checkSettings(training.modelParam, training.config)
    validation = importlib.import_module(f'Validate_task{task}')
    checkSettings(validation.modelParam, validation.config)


@pytest.mark.parametrize('name, key, value', [
    ('config', 'learningRate', 0.001), ('config', 'learningRate', {'lr': -1}), ('config', 'optimizer', 'AdamW'),
    ('config', 'hidden_state_sizes', 0), ('config', 'hidden_state_sizes', 512.0), ('config', 'num_rnn_layers', '2'),
    ('config', 'scheduler_milestones', [90, 75]), ('config', 'scheduler_milestones', 75), ('config', 'weight_decay', -1e-5),
    ('config', 'weight_decay', float('nan')), ('config', 'vocabulary_size', True), ('config', 'seed', None),
    ('config', 'cellType', 3), ('config', 'learning_rate', 0.1), ('modelParam', 'batch_size', 0),
    ('modelParam', 'cuda', {'use_cuda': True}), ('modelParam', 'cuda', {'use_cuda': True, 'device_idx': -1}),
    ('modelParam', 'modelName', ''), ('modelParam', 'modelName', '../'), ('modelParam', 'img_dir', ' '),
    ('modelParam', 'modeSetups', [['val', True]]), ('modelParam', 'modeSetups', [['train', True], ['val', False]]),
    ('modelParam', 'modeSetups', [['train', True], ['train', 1], ['val', True]]), ('modelParam', 'modeSetups', [[['val'], True]]),
    ('modelParam', 'modeSetups', [['train', True]]), ('modelParam', 'modeSetups', 'val'),
    ('modelParam', 'numbOfEpochs', 2.5), ('modelParam', 'restoreModelLast', 2), ('modelParam', 'batchsize', 8)])
def test_what_is_impossible_is_named(name, key, value):
    import Exercise_Train_task3
    settings = {'config': dict(Exercise_Train_task3.config), 'modelParam': dict(Exercise_Train_task3.modelParam)}
    settings[name][key] = value
    with pytest.raises(UserError) as error:
        checkSettings(**settings)
    assert f'{name}[{key!r}]' in str(error.value)
    assert str(error.value).count("'] is ") == 1


@pytest.mark.parametrize('config', [{'beamSize': 0}, {'beamSize': 2.5}, {'beamSize': True}, {'beamSize': '3'}, {'seed': 1}])
def test_an_impossible_beam_is_named(config):
    import Validate_task3
    with pytest.raises(UserError, match=r"config\['(beamSize|seed)'\] is "):
        checkSettings(Validate_task3.modelParam, config)


@pytest.mark.parametrize('modes', [[['train', True]], [['val', False], ['val', True]], [['test', False]], 5])
def test_impossible_modes_of_a_validation_are_named(modes):
    import Validate_task3
    with pytest.raises(UserError, match=r"modelParam\['modeSetups'\] is "):
        checkSettings({**Validate_task3.modelParam, 'modeSetups': modes}, Validate_task3.config)


@pytest.mark.parametrize('name, key, value', [
    ('config', 'scheduler_milestones', None), ('modelParam', 'modelsDir', './'), ('modelParam', 'img_dir', '../'),
    ('modelParam', 'data_dir', '/'), ('modelParam', 'modeSetups', (('train', 1), ('val', True)))])
def test_what_is_possible_is_taken(name, key, value):
    import Exercise_Train_task3
    settings = {'config': dict(Exercise_Train_task3.config), 'modelParam': dict(Exercise_Train_task3.modelParam)}
    settings[name][key] = value
    modelParam, config = checkSettings(**settings)
    assert {'config': config, 'modelParam': modelParam}[name][key] == value


def test_missing_keys_take_the_courses_values():
    modelParam, config = checkSettings({'modelName': 'mine/'}, {
        'cellType': 'GRU', 'num_rnn_layers': 2, 'featurepathstub': 'detectron2_lim10maxfeatures'})
    assert config['seed'] == 1 and config['learningRecipe'] == 'assignment' and config['vocabulary_size'] == 10000
    assert modelParam['numbOfEpochs'] == 99 and modelParam['modeSetups'] == [['train', True], ['val', True]]
    assert modelParam['data_dir'].endswith('/') and modelParam['batch_size'] == 128 and modelParam['restoreModelBest'] == 0
    config['learningRate']['lr'] = 7
    assert withDefaults({})['learningRate'] == {'lr': 0.001}
    modelParam, config = checkSettings({'modelName': 'mine/', 'inference': True, 'trainingScript': 'train.py'}, {})
    assert config == {'beamSize': 3} and modelParam['modeSetups'] == [['val', False]] and modelParam['restoreModelBest'] == 1


def test_a_missing_key_and_all_faults_at_once():
    import Exercise_Train_task1
    config = {**Exercise_Train_task1.config, 'optimizer': 'best'}
    del config['cellType']
    with pytest.raises(UserError, match=r"config\['cellType'\] is missing.*config\['optimizer'\] is 'best'"):
        checkSettings(Exercise_Train_task1.modelParam, config)
