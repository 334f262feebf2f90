"""Ends trainings and validations at random moments and compares with a training left alone.

By hand on Linux, a quarter of an hour per task:

    PYTHONPATH=.:tests python tests/tools/kills.py [kills per task, 30] [tasks, 1 2 3 4]

The networks are small, but the batches are COCO's: 128 images with five captions. They end by
kill -9, by signals to the script or to all of its processes, and by an error. After each end all
processes must be gone soon, with one stack trace for an error and none otherwise;
the checkpoints must load and no saved epoch be lost. In the end the history and the weights must
be those of the training left alone, bit for bit.
"""
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
from leftovers import hear_signals, kill_all, marked_environment, seconds_until_gone
from project_copies import copy_of_project, write_driver

from utils.data.captionWords import captionRecord, wordsOfCaption
from utils.data.dataFolder import makeFolders, vocabularyFile, writeImage
from utils.files.ownFiles import readJson, writePickle
from utils.files.safePickle import loadCheckpoint
from utils.generateVocabulary import generateVocabulary
from utils.saverRestorer import checkpointEpochs

TASKS = 1, 2, 3, 4
EPOCHS = 30
IMAGES = 1024, 384     # to train and to validate: eight and three batches
WORDS = 2000           # different ones in the captions
LONGEST_LIFE = 6       # epochs from a start to its end, at the speed of the training left alone
SECONDS_TO_END = 5
SMALL = {'embedding_size': 32, 'hidden_state_sizes': 64}
WAYS = {  # name → (signal, whether to all processes, stack traces)
    'kill -9': (signal.SIGKILL, False, 0),
    'SIGTERM': (signal.SIGTERM, False, 0),
    'an error': (signal.SIGUSR1, False, 1),
    'SIGTERM to all': (signal.SIGTERM, True, 0),
    'Ctrl-C': (signal.SIGINT, True, 0),
}

FAIL = '''
import signal


def fail(*_):
    raise ArithmeticError('thrown in')


signal.signal(signal.SIGUSR1, fail)
'''


def make_data(root, images=IMAGES, number_of_words=WORDS):
    """Data in the course's layout, of random features and captions of COCO's lengths.

    Args:
        root: the new folder.
        images: pair of their numbers, to train and to validate.
        number_of_words: different ones in the captions, the first of them the more frequent.
    """
    rng = np.random.default_rng(1)

    def caption():
        size = 30 if rng.random() < .002 else rng.integers(8, 14)
        words = rng.integers(rng.integers(5, number_of_words), size=size)
        return ' '.join(f'word{word}' for word in words)

    captions = [[caption() for _ in range(5)] for _ in range(sum(images))]
    vocabulary = generateVocabulary([wordsOfCaption(text) for texts in captions for text in texts])
    makeFolders(root)
    writePickle(vocabularyFile(root), vocabulary)
    for number, texts in enumerate(captions):
        name = f'{number:012d}'
        writeImage(root, 'train' if number < images[0] else 'val', name, {
            **captionRecord(f'{name}.jpg', texts, vocabulary['wordToToken']),
            'cnn_features': rng.random((10, 2048), np.float32)})


def start(folder, script):
    """A script, 'train' or 'validate', as a process in a session of its own.

    Its attribute `environment` finds all of its processes.
    """
    environment = marked_environment()
    process = subprocess.Popen([sys.executable, f'{script}.py'], cwd=folder,
                               start_new_session=True, env=environment,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    process.environment = environment
    return process


def run_folder(folder):
    """The folder of the only run in a copy of the project."""
    run, = (entry.path for entry in os.scandir(os.path.join(folder, 'storedModels'))
            if entry.is_dir())
    return run


def state_of(folder):
    """The epochs of a copy's checkpoints, each of which is loaded: of 'last' and of 'best'."""
    run = run_folder(folder)
    for name in os.listdir(run):
        if name.endswith('.pt') and not name.startswith('partial'):
            loadCheckpoint(os.path.join(run, name))
    return checkpointEpochs(run, 'last'), checkpointEpochs(run, 'best')


def result(folder):
    """History and weights of a training that has come to its end, and the partial files left."""
    run = run_folder(folder)
    checkpoint = loadCheckpoint(os.path.join(run, f'last_epoch{EPOCHS}.pt'))
    left = [name for name in os.listdir(run) if name.startswith('partial_')]
    return readJson(os.path.join(run, 'history.json'), None), checkpoint['model_state_dict'], left


def finish(folder, script='train'):
    """Runs to the end; the seconds until `LONGEST_LIFE` epochs were done, or until the end."""
    begin, seconds = time.monotonic(), None
    process = start(folder, script)
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(f'epoch {LONGEST_LIFE}/'.encode()):
            seconds = time.monotonic() - begin
    if process.wait():
        raise SystemExit(b''.join(lines).decode('utf-8', 'replace'))
    return seconds or time.monotonic() - begin


def killed(folder, script, way, longest_life, moments):
    """Starts a script and ends it at a random moment.

    Returns:
        the seconds until all of its processes were gone; None if it came to its end before.
    """
    number, to_all, traces = WAYS[way]
    process = start(folder, script)
    try:
        process.communicate(timeout=moments.uniform(0, longest_life))
        return None
    except subprocess.TimeoutExpired:
        begin = time.monotonic()
        if to_all:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
        output, _ = process.communicate(timeout=SECONDS_TO_END)
        seconds_until_gone(process.environment, SECONDS_TO_END)
        seconds = time.monotonic() - begin
        if b'Data: ' in output:  # it was no longer importing
            right = output.count(b'Traceback') == traces and b'Exception ignored' not in output
            assert right, output.decode('utf-8', 'replace')
        return seconds
    finally:
        kill_all(process.environment)


def try_task(task, kills, folder, root, moments):
    """Whether a training that is ended again and again ends like one left alone."""
    alone, disturbed = (copy_of_project(os.path.join(folder, f'{name}{task}'), root)
                        for name in ('alone', 'disturbed'))
    for project in (alone, disturbed):
        write_driver(project, 'train.py', f'Exercise_Train_task{task}', SMALL, FAIL,
                     numbOfEpochs=EPOCHS)
        write_driver(project, 'validate.py', f'Validate_task{task}', first=FAIL)
    lives = {'train': finish(alone), 'validate': finish(alone, 'validate')}
    reached = 0
    for kill in range(1, kills + 1):
        way = list(WAYS)[kill % len(WAYS)]
        script, project = ('validate', alone) if kill % 4 == 0 else ('train', disturbed)
        seconds = None
        while seconds is None:
            seconds = killed(project, script, way, lives[script], moments)
            if seconds is None and script == 'train':  # it came to its end: a new one
                shutil.rmtree(os.path.join(disturbed, 'storedModels'))
                reached = 0
        print(f'task {task}, {kill}: {way}, {script}: {seconds:.2f} s', flush=True)
        if os.path.isdir(os.path.join(disturbed, 'storedModels')):
            last, best = (max(epochs, default=0) for epochs in state_of(disturbed))
            assert last >= reached, f'epoch {reached} was saved, and now there is {last}'
            assert best or not last, 'there is a last checkpoint without a best one'
            reached = last
    finish(disturbed)
    (wanted, wanted_weights, _), (history, weights, left) = result(alone), result(disturbed)
    same_weights = all(torch.equal(weights[name], wanted_weights[name]) for name in weights)
    same = history == wanted and same_weights and not left
    print(f'task {task}: {"the same result" if same else "ANOTHER RESULT"}', flush=True)
    return same


def main(kills=30, *tasks):
    moments = random.Random(1)
    hear_signals()
    with tempfile.TemporaryDirectory() as folder:
        root = os.path.join(folder, 'data')
        make_data(root)
        outcomes = [try_task(int(task), int(kills), folder, root, moments)
                    for task in tasks or TASKS]
    sys.exit(0 if all(outcomes) else 'Not all trainings came through.')


if __name__ == '__main__':
    main(*sys.argv[1:])
