"""The scripts as a user starts them, on a tiny data set: train, go on, validate."""
import importlib
import json
import os
import signal
import subprocess
import sys

import pytest
import torch
from leftovers import kill_all, marked_environment, needs_proc, python, seconds_until_gone
from project_copies import copy_of_project, write_driver

from utils import saverRestorer, validate
from utils.data import dataFolder
from utils.files.errors import UserError
from utils.files.ownFiles import inProject
from utils.scripts.endings import KEPT, runScript

SMALL = {'number_of_cnn_features': 16, 'embedding_size': 8, 'hidden_state_sizes': 12}


@pytest.fixture
def scripts(tmp_path, monkeypatch):
    """A function that returns a task's scripts, with a small network and folders of their own."""
    def settle(task, data_dir):
        training = importlib.import_module(f'Exercise_Train_task{task}')
        validation = importlib.import_module(f'Validate_task{task}')
        changes = {'data_dir': data_dir, 'modelsDir': str(tmp_path / 'models'),
                   'img_dir': str(tmp_path / 'plots'), 'numbOfCPUThreadsUsed': 1, 'numbOfEpochs': 1}
        for script in (training, validation):
            monkeypatch.setattr(script, 'modelParam', {**script.modelParam, **changes})
        monkeypatch.setattr(training, 'config', {**training.config, **SMALL})
        return training, validation

    monkeypatch.setattr(saverRestorer, 'DELIVERED', str(tmp_path / 'delivered'))
    return settle


AT_TORCH = """
import os, runpy, sys

class Finder:
    def find_spec(self, name, *_):
        if name == 'torch':
            sys.exit(os.environ.get('GOMP_SPINCOUNT'))

sys.meta_path.insert(0, Finder())
runpy.run_path({script!r}, run_name='__main__')
"""


def test_torch_finds_how_its_threads_wait():
    """Also where the user has chosen."""
    variables = {key: value for key, value in os.environ.items() if key != 'OMP_WAIT_POLICY'}
    scripts = [*(f'{kind}_task{task}.py' for kind in ('Exercise_Train', 'Validate')
                 for task in (1, 2, 3, 4)), 'utils/captionPhotos.py', 'utils/buildCourseLayout.py',
               'report/make_report.py', 'report/make_zip.py']
    for number, script in enumerate(scripts):
        chosen = {'GOMP_SPINCOUNT': '7'} if number == 0 else {}
        done = python('-c', AT_TORCH.format(script=script), env={**variables, **chosen})
        assert done.stderr.strip() == ('7' if chosen else '1000'), script


@pytest.mark.usefixtures('shared_meteor')
@pytest.mark.parametrize('task', [1, 2, 3, 4])
def test_train_and_validate(task, scripts, course_folder, tmp_path, capsys):
    root = course_folder()
    training, validation = scripts(task, root)
    with pytest.raises(UserError, match='Train the model first'):
        validation.main()
    capsys.readouterr()
    training.main()
    out = capsys.readouterr().out.splitlines()
    assert '10 training and 5 validation images. Device: ' in out[0] and root in out[0]
    assert len(list((tmp_path / 'models').glob('checkedFiles_*'))) == 2
    assert out[-3].startswith('epoch 1/1') and out[-1].startswith('The best METEOR is')
    assert os.path.isfile(out[-2].split('Curves: ')[1])
    validation.main()
    out = capsys.readouterr().out
    assert '5 validation images' in out.splitlines()[0] and 'greedy   beam of 3' in out
    run, = filter(os.path.isdir, (tmp_path / 'models').iterdir())
    name = training.modelParam['modelName'].rstrip('/')
    assert run.name.startswith(f'{name}_data-')
    meteor = json.loads((run / 'history.json').read_text())[0]['meteor']
    assert f'meteor        {meteor:.4f}' in out and 'meteor_tokens' in out and 'loss' in out
    assert (tmp_path / 'plots' / run.name / 'captions.html').exists()
    assert (run / 'captions_validation_beam3.json').exists()


@pytest.mark.usefixtures('shared_meteor')
def test_the_lines_for_a_notebook_in_the_readme(scripts, course_folder):
    training, _ = scripts(4, course_folder())
    training.main()
    with open(inProject('README.md'), encoding='utf-8') as f:
        section = f.read().split('## In a notebook')[1].split('\n## ')[0]
    names = {}
    exec('\n'.join(line[4:] for line in section.splitlines() if line.startswith('    ')), names)
    assert len(names['captions']) == 5
    assert torch.allclose(names['attention'].sum(2), torch.ones(5, len(names['tokens'][0])))


@pytest.mark.usefixtures('shared_meteor')
def test_without_an_own_model_the_delivered_one_is_validated(scripts, course_folder, tmp_path,
                                                             monkeypatch, capsys):
    demo, other = (course_folder(name=name) for name in ('demo', 'other'))
    for module in (dataFolder, validate):
        monkeypatch.setattr(module, 'DEMO_ROOT', demo)
    training, validation = scripts(1, demo)
    training.main()
    (tmp_path / 'models').rename(tmp_path / 'delivered')
    monkeypatch.setitem(validation.modelParam, 'data_dir', other)
    capsys.readouterr()
    validation.main()
    out = capsys.readouterr().out
    assert f'No model has been trained yet on the data in {other}' in out
    assert 'Model, delivered: ' in out and f'Data: {demo}, 5 validation' in out


@needs_proc
@pytest.mark.parametrize('name, to_all', [('SIGINT', True), ('SIGTERM', False)])
def test_a_signal_ends_a_run_in_a_sentence_and_leaves_no_process(name, to_all, course_folder, jars,
                                                                 tmp_path):
    """To the script alone, as by kill, or to Java as well, as a terminal sends it.

    The script is started from another folder, and there are spaces in its path.
    """
    root = course_folder(name='my øl data')
    project = tmp_path / 'my project'
    copy_of_project(project, root)
    write_driver(project, 'train.py', 'Exercise_Train_task1', SMALL, numbOfEpochs=10000,
                 first=f'from utils import metrics; metrics.METEOR_FOLDER = {str(jars)!r}')
    environment = marked_environment(PYTHONIOENCODING='utf-8')
    process = subprocess.Popen([sys.executable, project / 'train.py'],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding='utf-8',
                               env=environment, start_new_session=True, cwd=tmp_path)
    try:
        next(line for line in process.stdout if line.startswith('epoch 1/'))
        send = os.killpg if to_all else os.kill
        send(process.pid, getattr(signal, name))
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 1 and 'Traceback' not in errors
        assert errors.strip().endswith(f'Stopped. {KEPT}')
        seconds_until_gone(environment, 5)
    finally:
        kill_all(environment)
    assert list(project.glob('storedModels/task1_rnn_my øl data-*/last_epoch*.pt'))


def test_a_missing_data_folder_ends_in_a_sentence(scripts, tmp_path):
    training, _ = scripts(1, str(tmp_path / 'nowhere'))
    with pytest.raises(SystemExit, match='nowhere does not exist'):
        runScript(training.main)
