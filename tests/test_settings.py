"""Wrong settings are named before anything is loaded; the scripts' own are right."""
import importlib

import pytest

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
    ('config', 'cellType', 'lstm'), ('config', 'learning_rate', 0.1), ('modelParam', 'batch_size', 0),
    ('modelParam', 'cuda', {'use_cuda': True}), ('modelParam', 'cuda', {'use_cuda': True, 'device_idx': -1}),
    ('modelParam', 'modelName', ''), ('modelParam', 'modeSetups', [['train', True]]), ('modelParam', 'modeSetups', 'val'),
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


def test_a_missing_key_and_all_faults_at_once():
    import Exercise_Train_task1
    config = {**Exercise_Train_task1.config, 'optimizer': 'best'}
    del config['seed']
    with pytest.raises(UserError, match=r"config\['seed'\] is missing.*config\['optimizer'\] is 'best'"):
        checkSettings(Exercise_Train_task1.modelParam, config)
