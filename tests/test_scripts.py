"""The scripts as a user starts them, on a tiny data set: train, go on, validate; one task in a folder of its own."""
import importlib
import json
import os
import shutil
import signal
import subprocess
import sys

import pytest
from leftovers import kill_all, marked_environment, needs_proc, seconds_until_gone, side_by_side

from utils import saverRestorer, validate
from utils.data import dataFolder
from utils.files.errors import UserError
from utils.files.project import PROJECT
from utils.scripts.start import GOES_ON

TASKS = (1, 2, 3, 4)
SMALL = {'number_of_cnn_features': 16, 'embedding_size': 8, 'hidden_state_sizes': 12}


@pytest.mark.usefixtures('shared_meteor')
@pytest.mark.parametrize('task', TASKS)
def test_train_and_validate(task, course_folder, tmp_path, monkeypatch, capsys):
    root = course_folder(n_train=8, n_val=4)
    folders = {'data_dir': root, 'modelsDir': str(tmp_path / 'models'), 'img_dir': str(tmp_path / 'plots'),
               'numbOfCPUThreadsUsed': 1}
    training = importlib.import_module(f'Exercise_Train_task{task}')
    validation = importlib.import_module(f'Validate_task{task}')
    for key, value in SMALL.items():
        monkeypatch.setitem(training.config, key, value)
    for script in (training, validation):
        for key, value in folders.items():
            monkeypatch.setitem(script.modelParam, key, value)
    monkeypatch.setitem(training.modelParam, 'numbOfEpochs', 1)

    monkeypatch.setattr(saverRestorer, 'DELIVERED', str(tmp_path / 'delivered'))
    with pytest.raises(UserError, match=f'Exercise_Train_task{task}.py'):
        validation.main()
    capsys.readouterr()
    training.main()
    out = capsys.readouterr().out.splitlines()
    assert '8 training and 4 validation images' in out[0] and root in out[0] and 'Device: ' in out[0]
    assert out[1].startswith('epoch 1/1')
    training.main()
    assert 'is trained' in capsys.readouterr().out
    validation.main()
    out = capsys.readouterr().out
    assert '4 validation images' in out.splitlines()[0]
    run, = os.listdir(folders['modelsDir'])
    assert run.startswith(training.modelParam['modelName'].rstrip('/') + '_data-')
    with open(os.path.join(folders['modelsDir'], run, 'history.json')) as f:
        history = json.load(f)
    assert f"meteor        {history[0]['meteor']:.4f}" in out and 'meteor_tokens' in out and 'loss' in out
    assert 'captions.html' in os.listdir(os.path.join(folders['img_dir'], run))
    assert 'greedy   beam of 3' in out and 'captions_validation_beam3.json' in os.listdir(os.path.join(folders['modelsDir'], run))


@pytest.mark.usefixtures('shared_meteor')
def test_without_an_own_model_the_delivered_one_is_validated_on_what_it_learned(course_folder, tmp_path, monkeypatch, capsys):
    demo, other = course_folder(n_train=8, n_val=4, name='demo'), course_folder(n_train=4, n_val=3, name='other')
    for module in (dataFolder, validate):
        monkeypatch.setattr(module, 'DEMO_ROOT', demo)
    monkeypatch.setattr(saverRestorer, 'DELIVERED', str(tmp_path / 'delivered'))
    training, validation = (importlib.import_module(name) for name in ('Exercise_Train_task1', 'Validate_task1'))
    for key, value in SMALL.items():
        monkeypatch.setitem(training.config, key, value)
    for script in (training, validation):
        monkeypatch.setitem(script.modelParam, 'img_dir', str(tmp_path / 'plots'))
        monkeypatch.setitem(script.modelParam, 'numbOfCPUThreadsUsed', 0)
    for key, value in (('data_dir', demo), ('modelsDir', str(tmp_path / 'delivered')), ('numbOfEpochs', 1)):
        monkeypatch.setitem(training.modelParam, key, value)
    training.main()
    for key, value in (('data_dir', other), ('modelsDir', str(tmp_path / 'models'))):
        monkeypatch.setitem(validation.modelParam, key, value)
    capsys.readouterr()
    validation.main()
    out = capsys.readouterr().out
    assert f'No model has been trained on the data in {other} yet (python Exercise_Train_task1.py does that)' in out
    assert 'comes with the project' in out and 'built-in demo data' in out and '4 validation images' in out


def test_validation_imports_no_training_code():
    code = f'import sys, {", ".join(f"Validate_task{task}" for task in TASKS)}\n' \
           'print([m for m in sys.modules if "rainer" in m or "Exercise" in m])'
    assert subprocess.run([sys.executable, '-c', code], cwd=PROJECT, stdout=subprocess.PIPE, check=True,
                          universal_newlines=True).stdout.strip() == '[]'


DRIVER = """import {script} as script
from utils import metrics
from utils.scripts.endings import runScript

metrics.METEOR_FOLDER = {meteor!r} or metrics.METEOR_FOLDER
script.config.update({config!r})
script.modelParam.update({modelParam!r})
if __name__ == '__main__':
    runScript(script.main)
"""


def copy_of_project(project, root, epochs, meteor=''):
    """A copy of the project for the data in `root`; the path of a script in it that trains a small task 1, with the METEOR in
    the folder `meteor`, which may start sooner."""
    shutil.copytree(os.path.join(PROJECT, 'utils'), str(project / 'utils'))
    for name in os.listdir(PROJECT):
        if name.endswith('.py'):
            shutil.copy(os.path.join(PROJECT, name), str(project))
    (project / 'utils' / 'dataRoot.py').write_text(f'DATA_ROOT = {root!r}\n', encoding='utf-8')
    script = project / 'train.py'
    text = DRIVER.format(script='Exercise_Train_task1', config=SMALL, modelParam={'numbOfEpochs': epochs}, meteor=meteor)
    script.write_text(text, encoding='utf-8')
    return str(script)


@needs_proc
@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_a_signal_ends_a_run_in_a_sentence_and_leaves_no_process(course_folder, jars, tmp_path):
    """To the script alone, as by kill, or to the loaders and Java as well, as a terminal sends it."""
    root = course_folder(n_train=8, n_val=4)

    def check(name, to_all):
        number = getattr(signal, name)
        script = copy_of_project(tmp_path / name, root, epochs=10000, meteor=str(jars))
        environment = marked_environment()
        process = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   universal_newlines=True, start_new_session=True, env=environment)
        try:
            for line in process.stdout:
                if line.startswith('epoch 1/'):
                    break
            if to_all:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 1 and 'Traceback' not in errors and errors.strip().endswith(f'Stopped. {GOES_ON}')
            seconds_until_gone(environment, 5)
        finally:
            kill_all(environment)
        kept = os.listdir(str(tmp_path / name / 'storedModels'))
        assert any(file.startswith('last_epoch') for run in kept
                   for file in os.listdir(str(tmp_path / name / 'storedModels' / run)))

    side_by_side(check, [('SIGINT', True), ('SIGTERM', False), ('SIGHUP', True)])


def test_a_script_started_elsewhere_in_a_folder_with_a_space(course_folder, jars, tmp_path):
    """As a process of its own: another working directory with a long path, an output file, TMP=./tmp that nobody has made."""
    project = tmp_path / 'my project'
    copy_of_project(project, course_folder(n_train=8, n_val=4, name='my øl data'), epochs=1, meteor=str(jars))
    elsewhere = tmp_path / ('elsewhere' * 10)
    elsewhere.mkdir()
    environment = {**os.environ, 'TMP': './tmp', 'PYTHONIOENCODING': 'utf-8'}
    for name in ('train.py', 'Validate_task1.py'):
        done = subprocess.run([sys.executable, str(project / name)], cwd=str(elsewhere), env=environment,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == 0, done.stderr.decode()
        assert b'\r' not in done.stdout + done.stderr
    assert (elsewhere / 'tmp').is_dir() and 'meteor_tokens' in done.stdout.decode('utf-8')
    assert [path.name for path in (project / 'storedModels').iterdir()][0].startswith('task1_rnn_my øl data-')


def test_a_missing_data_folder_ends_in_a_sentence(tmp_path, monkeypatch):
    import Exercise_Train_task1
    from utils.scripts.endings import runScript
    monkeypatch.setitem(Exercise_Train_task1.modelParam, 'data_dir', str(tmp_path / 'nowhere'))
    with pytest.raises(SystemExit, match='nowhere does not exist'):
        runScript(Exercise_Train_task1.main)
