"""Kills trainings at random moments, 30 times per task, starts them again, and compares with a training left alone.

    PYTHONPATH=. python tests/tools/kills.py

Run by hand, half an hour and more. Each task trains at its full size, but on a few drawn scenes, in a copy of the project. After
every kill the checkpoints on disk must load, no epoch that was saved may be lost, and no process may be left; at the end
the history and the weights must be those of the training that nobody disturbed, bit for bit.
"""
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import torch

from utils.demo.demoData import makeDemoData
from utils.files.atomic import readJson
from utils.files.project import PROJECT
from utils.files.safePickle import loadCheckpoint
from utils.saverRestorer import checkpointEpochs

TASKS = (1, 2, 3, 4)
KILLS = 30
EPOCHS = 60
IMAGES = 96, 32      # to train and to validate: a few seconds per epoch, much of it scoring and saving
LONGEST_LIFE = 10    # epochs from a start to its kill, at the speed of the training left alone
SECONDS_TO_END = 60  # in which Java, which first reads its tables, and the loaders follow a killed training


def copy_of_project(folder, root, number_of_epochs=EPOCHS):
    """A copy of the scripts for the data in `root`, the number of epochs changed."""
    shutil.copytree(os.path.join(PROJECT, 'utils'), os.path.join(folder, 'utils'))
    for name in os.listdir(PROJECT):
        if name.endswith('.py'):
            with open(os.path.join(PROJECT, name), encoding='utf-8') as f:
                text = f.read()
            for epochs in (50, 80, 100):
                text = text.replace(f'else {epochs},', f'else {number_of_epochs},')
            with open(os.path.join(folder, name), 'w', encoding='utf-8') as f:
                f.write(text)
    with open(os.path.join(folder, 'utils', 'dataRoot.py'), 'w', encoding='utf-8') as f:
        f.write(f'DATA_ROOT = {root!r}\n')
    return folder


def start(folder, task):
    return subprocess.Popen([sys.executable, f'Exercise_Train_task{task}.py'], cwd=folder, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def state_of(folder):
    """The epochs of the checkpoints in the copy's only run, each of which is loaded: of 'last' and of 'best'."""
    models = os.path.join(folder, 'storedModels')
    if not os.path.isdir(models):
        return [], []
    run, = (os.path.join(models, name) for name in os.listdir(models))
    for name in os.listdir(run):
        if name.endswith('.pt') and not name.startswith('partial'):
            loadCheckpoint(os.path.join(run, name))
    return checkpointEpochs(run, 'last'), checkpointEpochs(run, 'best')


def seconds_to_end(group):
    """After how many seconds all processes of a session have ended by themselves."""
    begin = time.time()
    while time.time() - begin < SECONDS_TO_END:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return time.time() - begin
        time.sleep(0.1)
    raise AssertionError(f'{SECONDS_TO_END} s after a kill processes are left')


def result(folder):
    models = os.path.join(folder, 'storedModels')
    run, = (os.path.join(models, name) for name in os.listdir(models))
    checkpoint = loadCheckpoint(os.path.join(run, f'last_epoch{EPOCHS}.pt'))
    left = [name for name in os.listdir(run) if name.startswith('partial_')]
    return readJson(os.path.join(run, 'history.json'), None), checkpoint['model_state_dict'], left


def finish(folder, task):
    """Trains to the end; the seconds from the start until `LONGEST_LIFE` epochs were done."""
    begin, seconds = time.time(), None
    process = start(folder, task)
    said = []
    for line in process.stdout:
        said.append(line.decode('utf-8', 'replace'))
        if said[-1].startswith(f'epoch {LONGEST_LIFE}/'):
            seconds = time.time() - begin
    if process.wait():
        raise SystemExit(''.join(said))
    return seconds


def try_task(task, folder, root, moments):
    """Whether a training that is killed again and again ends as one left alone."""
    alone, killed = (copy_of_project(os.path.join(folder, name), root) for name in (f'alone{task}', f'killed{task}'))
    longest_life = finish(alone, task)
    reached, followed = [0], []
    while len(reached) <= KILLS:
        process = start(killed, task)
        try:
            process.communicate(timeout=moments.uniform(0, longest_life))
            shutil.rmtree(os.path.join(killed, 'storedModels'))  # it came to its end: a new one
            reached[-1] = 0
            continue
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            process.stdout.close()
        number = len(reached)
        followed.append(seconds_to_end(process.pid))
        last, best = (max(epochs, default=0) for epochs in state_of(killed))
        assert last >= reached[-1], f'task {task}: epoch {reached[-1]} was saved, and after kill {number} there is {last}'
        assert bool(last) <= bool(best), f'task {task}: after kill {number} there is a last checkpoint without a best one'
        reached.append(last)
    finish(killed, task)
    (history, weights, _), (history_of_killed, weights_of_killed, left) = result(alone), result(killed)
    same_weights = all(torch.equal(weights[name], weights_of_killed[name]) for name in weights)
    print(f'task {task}: {KILLS} kills within {longest_life:.0f} s of a start, after epochs {sorted(set(reached[1:]))}; '
          f'all processes ended within {max(followed):.1f} s of each; the same history: {history == history_of_killed}, the same '
          f'weights: {same_weights}, partial files: {left}', flush=True)
    return history == history_of_killed and same_weights and not left


def main():
    moments = random.Random(1)
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'scenes')
        makeDemoData(root, *IMAGES)
        outcomes = [try_task(task, folder, root, moments) for task in TASKS]
    sys.exit(0 if all(outcomes) else 'Not all trainings came through.')


if __name__ == '__main__':
    main()
