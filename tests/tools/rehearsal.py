"""Training at COCO's real size: how soon it starts, how fast files come, how much memory it takes. Run by hand on Linux:

    PYTHONPATH=.:tests python tests/tools/rehearsal.py [folder] [training images, 118287] [tasks, 1 4]

Makes 118,287 files to train and 5,000 to validate, pooled and not, in a new folder inside the one named (default: the temporary
folder): 12 GB, some minutes. All of it is removed at the end. Each task is then started twice by its training script, the second
time on files that have been checked, and is ended after 100 batches; on a GPU after an epoch. *Memory* is that of all
processes together.
"""
import json
import os
import subprocess
import sys
import tempfile
import time

from benchmark import peak_of_family
from kills import copy_of_project, make_data

from utils.data.dataFolder import POOLED, UNPOOLED
from utils.dataLoader import DataLoaderWrapper

TRAINING, VALIDATION = 118287, 5000
D = 2048
WORDS = 10000              # different ones in the captions, about as many as COCO's vocabulary has
BATCHES = 100              # after which a training on a CPU has shown what it takes
SECONDS_TO_READ = 20       # for the loader alone

DRIVER = '''
import json, sys, time
import torch
import utils.model
from utils.scripts.endings import runScript
import Exercise_Train_task{task} as script

class Counted:
    """Model.learn, which says when the first batch came and how long the others were waited for."""
    learn = utils.model.Model.learn
    batches, waited, begin, ended = 0, 0., None, None

    def __call__(self, model, losses, words):
        now = time.monotonic()
        if self.begin is None:
            self.begin, self.first = now, time.time() - {begin}
        else:
            self.waited += now - self.ended
        values = Counted.learn(model, losses, words)
        if model.device.type == 'cuda':
            torch.cuda.synchronize()
        self.batches, self.ended = self.batches + 1, time.monotonic()
        if self.batches == {batches} and model.device.type == 'cpu' or self.batches == {all_batches}:
            print(json.dumps({{'first': self.first, 'waited': self.waited, 'batches': self.batches,
                               'seconds': self.ended - self.begin}}), flush=True)
            sys.exit()
        return values

counted = Counted()
utils.model.Model.learn = lambda *arguments: counted(*arguments)
if __name__ == '__main__':
    runScript(script.main)
'''


def started(project, task, all_batches):
    """What a start of a training says of itself, and the peak of its memory in bytes."""
    path = os.path.join(project, 'rehearse.py')
    with open(path, 'w', encoding='utf-8') as f:
        f.write(DRIVER.format(task=task, begin=time.time(), batches=min(BATCHES, all_batches), all_batches=all_batches))
    process = subprocess.Popen([sys.executable, path], cwd=project, stdout=subprocess.PIPE, universal_newlines=True)
    peak = 1000 * peak_of_family(process)
    said = process.stdout.read().splitlines()
    if process.returncode:
        raise SystemExit('\n'.join(said))
    return json.loads(said[-1]), peak


def images_per_second(root, task, batch_size, processes):
    """The speed of the loader alone, and the number of its processes."""
    config = {'featurepathstub': UNPOOLED if task == 4 else POOLED, 'number_of_cnn_features': D}
    loader = DataLoaderWrapper(config, {
        'data_dir': os.path.join(root, ''), 'batch_size': batch_size, 'numbOfCPUThreadsUsed': processes,
        'modeSetups': [['train', True]]}).myDataDicts['train']
    images, batches = 0, iter(loader)
    next(batches)
    begin = time.monotonic()
    for batch in batches:
        images += len(batch['imgPaths'])
        if time.monotonic() - begin > SECONDS_TO_READ:
            break
    return images / (time.monotonic() - begin), loader.num_workers


def main(folder=None, training=TRAINING, *tasks, validation=VALIDATION, batch_size=128, processes=10):
    """Prints a line per start and per loader; returns what `started` does for each task and start."""
    training, outcomes = int(training), {}
    with tempfile.TemporaryDirectory(dir=folder) as parent:
        root = os.path.join(parent, 'data')
        begin = time.monotonic()
        make_data(root, (training, validation), WORDS)
        print(f'{training:,} + {validation:,} images, made in {time.monotonic() - begin:.0f} s', flush=True)
        os.makedirs(os.path.join(parent, 'project'))
        project = copy_of_project(os.path.join(parent, 'project'), os.path.join(root, ''))
        for task in map(int, tasks or (1, 4)):
            for number in ('first', 'second'):
                outcome, peak = started(project, task, -(-training // batch_size))
                outcomes[task, number] = outcome, peak
                print(f"task {task}, {number} start: {outcome['first']:.1f} s to the first batch; {outcome['batches']} batches in "
                      f"{outcome['seconds']:.1f} s, {outcome['waited']:.1f} s of them waiting for files; memory "
                      f'{peak / 1e9:.2f} GB', flush=True)
            speed, processes_used = images_per_second(root, task, batch_size, processes)
            print(f'task {task}, loader alone: {speed:,.0f} images/s by {processes_used} processes', flush=True)
    return outcomes


if __name__ == '__main__':
    main(*sys.argv[1:])
