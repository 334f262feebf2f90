"""Ends trainings and validations at random moments and compares with a training left alone.

By hand on Linux, a quarter of an hour per task:

    PYTHONPATH=.:tests python tests/tools/kills.py [kills per task, 30] [tasks, 1 2 3 4]

The networks are small, but the batches are COCO's: 128 images with five captions. They end by
kill -9, by signals to the script or to all of its processes, and by an error. After each end all
processes must be gone within five seconds, with one stack trace for an error and none otherwise;
the checkpoints must load and no saved epoch be lost. In the end the history and the weights must
be those of the training left alone, bit for bit.
"""
import collections
import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from leftovers import hear_signals, kill_all, marked_environment, processes_with, seconds_until_gone

from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.files.atomic import readJson, writePickle
from utils.files.project import PROJECT
from utils.files.safePickle import loadCheckpoint
from utils.generateVocabulary import generateVocabulary
from utils.saverRestorer import checkpointEpochs

TASKS = 1, 2, 3, 4
KILLS = 30
EPOCHS = 30
IMAGES = 1024, 384     # to train and to validate: eight and three batches
WORDS = 2000           # different ones in the captions
LONGEST_LIFE = 6       # epochs from a start to its end, at the speed of the training left alone
SECONDS_TO_END = 5
SMALL = {'embedding_size': 32, 'hidden_state_sizes': 64}
WAYS = {  # name → (signal, whether to all processes, stack traces)
    'kill -9': (signal.SIGKILL, False, 0),
    'SIGTERM': (signal.SIGTERM, False, 0),
    'an error': (signal.SIGUSR2, False, 1),
    'SIGTERM to all': (signal.SIGTERM, True, 0),
    'Ctrl-C': (signal.SIGINT, True, 0),
}
PHASES = {  # by functions on the stack
    'score': 'scoring', 'compute_score': 'scoring', 'caption': 'validating',
    'teacherForcedLoss': 'validating', 'validateCaptions': 'validating', 'validate': 'validating',
    'run_epoch': 'training'}

DRIVER = '''"""{script}, with other numbers."""
import faulthandler
import signal

import {script} as script
from utils.scripts.endings import runScript

script.config.update({config!r})
script.modelParam.update({modelParam!r})


def fail(*_):
    raise ArithmeticError('thrown in')


if __name__ == '__main__':
    faulthandler.register(signal.SIGUSR1, open('stack', 'w'), all_threads=False)
    signal.signal(signal.SIGUSR2, fail)
    runScript(script.main)
'''


def copy_of_project(folder, root, number_of_epochs=EPOCHS, config=()):
    """A copy of the project for the data in `root`, with other numbers.

    `train{n}.py` and `validate{n}.py` are each task's scripts, with another number of epochs and
    other sizes.
    """
    shutil.copytree(os.path.join(PROJECT, 'utils'), os.path.join(folder, 'utils'))
    for name in os.listdir(PROJECT):
        if name.endswith('.py'):
            shutil.copy(os.path.join(PROJECT, name), folder)
    with open(os.path.join(folder, 'utils', 'dataRoot.py'), 'w', encoding='utf-8') as f:
        f.write(f'DATA_ROOT = {root!r}\n')
    for task in TASKS:
        scripts = {'train': ('Exercise_Train_task', dict(config), {'numbOfEpochs': number_of_epochs}),
                   'validate': ('Validate_task', {}, {})}
        for name, (script, config_changes, changes) in scripts.items():
            with open(os.path.join(folder, f'{name}{task}.py'), 'w', encoding='utf-8') as f:
                f.write(DRIVER.format(script=f'{script}{task}', config=config_changes,
                                      modelParam=changes))
    return folder


def make_data(root, images=IMAGES, number_of_words=WORDS):
    """Data in the course's layout, of random features and captions of COCO's lengths.

    Args:
        root: the new folder.
        images: pair of their numbers, to train and to validate.
        number_of_words: different ones in the captions.
    """
    draw, rng = random.Random(1), np.random.default_rng(1)
    words = [f'word{number}' for number in range(number_of_words)]
    captions = [[' '.join(draw.choice(words[:draw.randint(5, len(words))]) for _ in range(draw.randint(8, 13))) for _ in range(5)]
                for _ in range(sum(images))]
    vocabulary = generateVocabulary([wordsOfCaption(caption) for group in captions for caption in group])
    os.makedirs(os.path.join(root, 'vocabulary'))
    writePickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'), vocabulary)
    for split, numbers in (('Train', range(images[0])), ('Val', range(images[0], sum(images)))):
        folders = [os.path.join(root, f'{split}2017_detectron2_lim10{kind}features') for kind in ('', 'max')]
        for folder in folders:
            os.makedirs(folder)
        for number in numbers:
            record = captionRecord(f'{number:012d}.jpg', captions[number], vocabulary['wordToToken'])
            features = rng.random((10, 2048), np.float32)
            for folder, values in zip(folders, (features, features.max(0))):
                writePickle(os.path.join(folder, f'{number:012d}.pickle'), {**record, 'cnn_features': values})


def start(folder, task, script='train'):
    """A script as a process in a session of its own.

    Its attribute `environment` finds all of its processes.
    """
    environment = marked_environment()
    process = subprocess.Popen([sys.executable, f'{script}{task}.py'], cwd=folder,
                               start_new_session=True, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.environment = environment
    return process


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


def result(folder):
    models = os.path.join(folder, 'storedModels')
    run, = (os.path.join(models, name) for name in os.listdir(models))
    checkpoint = loadCheckpoint(os.path.join(run, f'last_epoch{EPOCHS}.pt'))
    left = [name for name in os.listdir(run) if name.startswith('partial_')]
    return readJson(os.path.join(run, 'history.json'), None), checkpoint['model_state_dict'], left


def finish(folder, task, script='train'):
    """Runs to the end; the seconds from the start until `LONGEST_LIFE` epochs were done, or until the end."""
    begin, seconds = time.monotonic(), None
    process = start(folder, task, script)
    said = []
    for line in process.stdout:
        said.append(line.decode('utf-8', 'replace'))
        if said[-1].startswith(f'epoch {LONGEST_LIFE}/'):
            seconds = time.monotonic() - begin
    if process.wait():
        raise SystemExit(''.join(said))
    return seconds or time.monotonic() - begin


def phase_of(process, folder):
    """What the script is doing, as far as its stack tells."""
    path = os.path.join(folder, 'stack')
    if not os.path.exists(path):
        return 'importing'
    os.kill(process.pid, signal.SIGUSR1)
    time.sleep(.05)
    with open(path) as f:
        functions = [line.split()[-1] for line in f if line.startswith('  File')]
    os.remove(path)
    return next((PHASES[function] for function in functions if function in PHASES), 'starting')


def end(process, folder, way):
    """Ends a running script.

    Returns:
        What it was doing, and the seconds until all of its processes were gone.
    """
    number, to_all, traces = WAYS[way]
    phase = phase_of(process, folder)
    (os.killpg if to_all else os.kill)(process.pid, number)
    begin = time.monotonic()
    output = process.communicate(timeout=SECONDS_TO_END)[0].decode('utf-8', 'replace')
    seconds_until_gone(process.environment, SECONDS_TO_END)
    seconds = time.monotonic() - begin
    if phase != 'importing':
        right = output.count('Traceback') == traces and 'Exception ignored' not in output
        assert right, f'{way} while {phase}: {output}'
    return phase, seconds


def killed(folder, task, way, longest_life, moments, script='train'):
    """Starts a script and ends it at a random moment; as `end`, or None where it was through."""
    process = start(folder, task, script)
    try:
        process.communicate(timeout=moments.uniform(0, longest_life))
    except subprocess.TimeoutExpired:
        try:
            return end(process, folder, way)
        finally:
            if processes_with(process.environment):
                print('left:', processes_with(process.environment), flush=True)
                kill_all(process.environment)
    return None


def try_task(task, kills, folder, root, moments):
    """Whether a training that is ended again and again becomes what one left alone does."""
    alone, disturbed = (copy_of_project(os.path.join(folder, f'{name}{task}'), root, config=SMALL)
                        for name in ('alone', 'disturbed'))
    longest_life, longest_validation = finish(alone, task), finish(alone, task, 'validate')
    reached, phases, seconds = 0, collections.Counter(), []
    for number in range(kills):
        way = list(WAYS)[number % len(WAYS)]
        validation = number % 4 == 3
        ended = None
        while ended is None:
            if validation:
                ended = killed(alone, task, way, longest_validation, moments, 'validate')
            else:
                ended = killed(disturbed, task, way, longest_life, moments)
                if ended is None:  # it came to its end: a new one
                    shutil.rmtree(os.path.join(disturbed, 'storedModels'))
                    reached = 0
        phases[ended[0]] += 1
        seconds.append(ended[1])
        script = 'validation' if validation else 'training'
        print(f'task {task}, {number + 1}: {way}, {script} while {ended[0]}: {ended[1]:.2f} s',
              flush=True)
        last, best = (max(epochs, default=0) for epochs in state_of(disturbed))
        assert last >= reached, f'task {task}: epoch {reached} was saved, and after end {number + 1} there is {last}'
        assert bool(last) <= bool(best), f'task {task}: after end {number + 1} there is a last checkpoint without a best one'
        reached = last
    finish(disturbed, task)
    (history, weights, _), (history_of_other, weights_of_other, left) = result(alone), result(disturbed)
    same_weights = all(torch.equal(weights[name], weights_of_other[name]) for name in weights)
    print(f'task {task}: {kills} ends, {dict(phases)}; all processes gone within {max(seconds):.2f} s of each; the same history: '
          f'{history == history_of_other}, the same weights: {same_weights}, partial files: {left}', flush=True)
    return history == history_of_other and same_weights and not left


def main(kills=KILLS, *tasks):
    moments = random.Random(1)
    hear_signals()
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'data')
        with contextlib.redirect_stdout(sys.stderr):
            make_data(root)
        outcomes = [try_task(int(task), int(kills), folder, root, moments) for task in tasks or TASKS]
    sys.exit(0 if all(outcomes) else 'Not all trainings came through.')


if __name__ == '__main__':
    main(*sys.argv[1:])
