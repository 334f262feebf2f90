"""Wrong settings are named before anything is loaded; the scripts' own are right."""
import importlib

import pytest

import Exercise_Train_task3
import Exercise_Train_task4
import Validate_task3
from utils.data.dataFolder import DEMO_ROOT
from utils.demo.demoSettings import fitToDemo
from utils.files.errors import UserError
from utils.scripts.settings import checkSettings, withDefaults


@pytest.mark.parametrize('script', [f'{kind}_task{task}' for kind in ('Exercise_Train', 'Validate')
                                    for task in (1, 2, 3, 4)])
def test_the_scripts_settings_are_possible(script):
    script = importlib.import_module(script)
    modelParam, config = checkSettings(script.modelParam, script.config)
    assert modelParam.items() >= script.modelParam.items() and config == {**config, **script.config}


IMPOSSIBLE = {
    (Exercise_Train_task3, 'config'): [
        ('learningRate', 0.001), ('learningRate', {'lr': -1}), ('optimizer', 'AdamW'),
        ('hidden_state_sizes', 512.0), ('scheduler_milestones', [90, 75]),
        ('scheduler_milestones', 75), ('scheduler_milestones', range(5, 9)),
        ('scheduler_milestones', [2.5]), ('weight_decay', float('nan')),
        ('vocabulary_size', True), ('cellType', 3), ('learning_rate', 0.1)],
    (Exercise_Train_task3, 'modelParam'): [
        ('batch_size', 0), ('cuda', {'use_cuda': True}), ('modelName', '../'), ('modelName', 'a/b'),
        ('img_dir', ' '),
        ('modeSetups', [['train', True], ['val', False]]), ('modeSetups', [['train', True]]),
        ('restoreModelLast', 2), ('batchsize', 8)],
    (Validate_task3, 'config'): [('beamSize', 2.5), ('seed', 1)],
    (Validate_task3, 'modelParam'): [
        ('modeSetups', [['val', False], ['val', True]]), ('modeSetups', 5)],
}


@pytest.mark.parametrize('script, name, key, value', [
    (*where, *setting) for where, settings in IMPOSSIBLE.items() for setting in settings])
def test_what_is_impossible_is_named(script, name, key, value):
    settings = {'config': dict(script.config), 'modelParam': dict(script.modelParam)}
    settings[name][key] = value
    with pytest.raises(UserError) as error:
        checkSettings(**settings)
    assert f'{name}[{key!r}] is ' in str(error.value) and str(error.value).count("'] is ") == 1


@pytest.mark.parametrize('script', [Exercise_Train_task3, Exercise_Train_task4])
def test_the_demo_data_are_trained_less(script, capsys):
    """With milestones at the same shares of the training."""
    modelParam = {**script.modelParam, 'data_dir': DEMO_ROOT}
    config, modelParam = fitToDemo(script.config, modelParam)
    assert config['scheduler_milestones'] == [15, 18]
    assert (modelParam['numbOfEpochs'], modelParam['batch_size']) == (20, 64)
    assert capsys.readouterr().out == ('For the demo data numbOfEpochs is 20, batch_size 64, and '
                                       'scheduler_milestones [15, 18].\n')
    assert fitToDemo(script.config, {**modelParam, 'data_dir': '/'})[0] is script.config


def test_missing_keys_take_the_courses_values():
    required = {key: Exercise_Train_task3.config[key]
                for key in ('cellType', 'num_rnn_layers', 'featurepathstub')}
    modelParam, config = checkSettings({'modelName': 'mine/', 'modelsDir': './', 'data_dir': 'x/'},
                                       {**required, 'scheduler_milestones': None})
    assert config['vocabulary_size'] == 10000 and modelParam['numbOfEpochs'] == 99
    assert modelParam['modeSetups'] == [['train', True], ['val', True]]
    config['learningRate']['lr'] = 7
    assert withDefaults({})['learningRate'] == {'lr': 0.001}
    modelParam, config = checkSettings(
        {'modelName': 'mine/', 'data_dir': 'x/', 'inference': True}, {})
    assert config == {'beamSize': 3} and modelParam['modeSetups'] == [['val', False]]


def test_a_missing_key_and_all_faults_at_once():
    config = {**Exercise_Train_task3.config, 'optimizer': 'best'}
    del config['cellType']
    said = r"config\['optimizer'\] is 'best'.*config\['cellType'\] is missing"
    with pytest.raises(UserError, match=said):
        checkSettings(Exercise_Train_task3.modelParam, config)
