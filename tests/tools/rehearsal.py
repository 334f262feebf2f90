"""Training at COCO's real size: its start, its speed at reading files, its memory.

By hand on Linux:

    PYTHONPATH=.:tests python tests/tools/rehearsal.py [folder] [images, 118287] [tasks, 1 4]

Makes that many images to train and 5,000 to validate, pooled and unpooled, in a new folder inside
the one named (default: the temporary folder): 12 GB, some minutes. All is removed at the end.
Each task's training is started twice, the second time on files that have been checked, and ended
after 100 batches; on a GPU after an epoch. The memory is that of the process and of all that it
starts.
"""
import importlib
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import torch
from benchmark import peak_of_family
from kills import make_data, run_folder
from project_copies import copy_of_project

from utils.dataLoader import DataLoaderWrapper

WORDS = 10000           # different ones in the captions, about as many as COCO's vocabulary has
BATCH = 128             # the training scripts' batch_size
BATCHES = 100           # after which a training on a CPU is ended
SECONDS_TO_READ = 20    # for the loader alone

DRIVER = '''
import json, sys, time
import torch
import utils.model
from utils.scripts.endings import runScript
import Exercise_Train_task{task} as script

learn = utils.model.Model.learn
times = []  # at which steps begin and end


def timed(*arguments):
    times.append(time.time())
    result = learn(*arguments)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    times.append(time.time())
    if len(times) == 2 * {batches}:
        print(json.dumps(times), flush=True)
        sys.exit()
    return result


utils.model.Model.learn = timed
if __name__ == '__main__':
    runScript(script.main)
'''


def started(project, task, batches):
    """Starts a training.

    Returns:
        seconds to the first batch, of all batches, and of waiting for files; the peak of the
        memory in bytes.
    """
    path = os.path.join(project, 'rehearse.py')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(DRIVER.format(task=task, batches=batches))
    begin = time.time()
    process = subprocess.Popen([sys.executable, path], cwd=project, stdout=subprocess.PIPE)
    peak = 1000 * peak_of_family(process)
    output = process.stdout.read().decode('utf-8', 'replace')
    if process.returncode:
        raise SystemExit(output)
    times = json.loads(output.splitlines()[-1])
    waiting = sum(times[2::2]) - sum(times[1:-1:2])
    return times[0] - begin, times[-1] - times[0], waiting, peak


def images_per_second(project, root, task):
    """The speed of the loader alone, on the files that the training has checked."""
    script = importlib.import_module(f'Exercise_Train_task{task}')
    folder, name = os.path.split(run_folder(project))
    wrapper = DataLoaderWrapper(script.config, {
        **script.modelParam, 'data_dir': root, 'modelsDir': folder, 'modelName': name,
        'modeSetups': [['train', True]]})
    wrapper.checkFiles()
    images, begin = 0, time.monotonic()
    for batch in wrapper.myDataDicts['train']:
        images += len(batch['imgPaths'])
        if time.monotonic() - begin > SECONDS_TO_READ:
            break
    return images / (time.monotonic() - begin)


def main(folder=None, training=118287, *tasks, validation=5000, starts=('first', 'second')):
    """Prints a line per start and per loader; returns what `started` returned, a list."""
    outcomes = []
    batches = math.ceil(int(training) / BATCH)
    if not torch.cuda.is_available():
        batches = min(BATCHES, batches)
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        root = os.path.join(parent, 'data', '')
        make_data(root, (int(training), validation), WORDS)
        for task in tasks or (1, 4):
            project = copy_of_project(os.path.join(parent, f'project{task}'), root)
            for number in starts:
                outcomes.append(started(project, task, batches))
                first, seconds, waiting, peak = outcomes[-1]
                print(f'task {task}, {number} start: {first:.1f} s to the first batch; {batches} '
                      f'batches in {seconds:.1f} s, {waiting:.1f} s of them waiting for files; '
                      f'memory {peak / 1e9:.2f} GB', flush=True)
            print(f'task {task}, loader alone: {images_per_second(project, root, task):,.0f} '
                  'images/s', flush=True)
    return outcomes


if __name__ == '__main__':
    main(*sys.argv[1:])
