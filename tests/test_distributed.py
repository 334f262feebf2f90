"""Training by two gloo processes against training by one, and how they end together.

torchrun starts this file as a script, which trains the cases that a JSON file lists.
"""
import contextlib
import importlib
import json
import os
import pathlib
import random
import signal
import socket
import subprocess
import sys
from unittest import mock

import pytest
import torch
from leftovers import kill_all, marked_environment, needs_proc, seconds_until_gone

from utils import metrics, model, trainer
from utils.files.ownFiles import PROJECT
from utils.plotter import Plotter
from utils.processes import distributed
from utils.processes.distributed import ShareOfBatches
from utils.scripts import start
from utils.scripts.endings import runScript

# What differs from the fixtures `config` and `model_param`. Of 9 images the last batch of four has
# one, in which one of two processes has none; with batches of one image it never has any.
ATTENTION = {'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'}
RUNS = {
    'lstm': ('cocoSource_task3_lstm',
             {'cellType': 'LSTM', 'learningRecipe': 'informedStart',
              'truncated_backprop_length': 4}, {}),
    'attention': ('cocoSource_task4_attention', ATTENTION, {'batch_size': 1}),
    'critical': ('cocoSource_task4_attention', {**ATTENTION, 'selfCriticalEpochs': 2},
                 {'batch_size': 3, 'numbOfEpochs': 1}),
    'endless': ('cocoSource_task2_gru', {}, {'numbOfEpochs': 10000}),
}

lossOfParts = model.Model.lossOfParts


def train(module, config, model_param, last_epoch=None, breaks=False):
    """A training script's `main`, without scores, plots, and the lock that it would keep.

    Dropout is off and batch normalisation does not learn, but for self-critical runs.

    Args:
        module: name of the model's file.
        last_epoch: after which the run is left, or None.
        breaks: whether the loss of process 1 is not finite in epoch 2.
    """
    net_class = importlib.import_module(module).ImageCaptionModel
    replaced = [(start, 'lockFolder'), (start, 'findJava'), (Plotter, 'plot'), (metrics, 'METEOR'),
                (metrics, 'tokenize', dict),
                (metrics, 'scoreCaptions', lambda *_: ({'meteor': 0.5, 'bleu_4': 0.0}, {}))]
    if 'selfCriticalEpochs' not in config:
        replaced.append((net_class, 'train', lambda net, mode: torch.nn.Module.train(net, False)))
    if last_epoch:
        replaced.append((trainer, 'allEpochs', lambda *_: last_epoch))
    if breaks:
        replaced.append((model.Model, 'lossOfParts', brokenLosses))
    with contextlib.ExitStack() as stack:
        for what in replaced:
            stack.enter_context(mock.patch.object(*what))
        trainer.train(config, model_param, net_class)


def brokenLosses(learner, batch):
    """As `lossOfParts`; in epoch 2 those of process 1 are not finite."""
    is_broken = distributed.rank() == 1 and learner.scheduler.last_epoch == 1
    for loss in lossOfParts(learner, batch):
        yield loss * float('nan') if is_broken else loss


def torchrun(cases, tmp_path):
    """Two processes that train the cases, as a process of torchrun.

    They meet at a port of their own: torchrun --standalone has one for all.
    """
    path = tmp_path / 'cases.json'
    path.write_text(json.dumps(cases), encoding='utf-8')
    folders = os.pathsep.join([PROJECT, os.path.dirname(__file__)])
    environment = marked_environment(PYTHONPATH=folders, OMP_NUM_THREADS='1', CASES=str(path))
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2',
         '--master_addr=127.0.0.1', f'--master_port={port}', __file__],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, universal_newlines=True)
    process.environment = environment
    return process


def output_of(process):
    """What it prints until its end, after which none of its processes is left."""
    try:
        out, errors = process.communicate()  # however long a busy machine takes
        seconds_until_gone(process.environment, 5)
        return out, errors
    finally:
        kill_all(process.environment)


def run_folder(case):
    models, name = case['model_param']['modelsDir'], case['model_param']['modelName'].rstrip('/')
    folder, = pathlib.Path(models).glob(f'{name}_data-*')
    return folder


def history(case):
    return json.loads((run_folder(case) / 'history.json').read_text())


def assert_close(history, other):
    assert len(history) == len(other) == 3
    for entry, wanted in zip(history, other):
        for key in ('train_loss', 'val_loss', 'learning_rate'):
            assert entry[key] == pytest.approx(wanted[key], abs=1e-5)


@pytest.fixture
def case(course_folder, config, model_param):
    """A function that makes the arguments of `train` for one of `RUNS`."""
    course_folder(n_train=9)

    def make(kind, name='m', **options):
        module, changes, parameters = RUNS[kind]
        parameters = {**model_param, **parameters, 'modelName': f'{name}/'}
        return {'module': module, 'config': {**config, **changes}, 'model_param': parameters,
                **options}

    return make


@needs_proc
def test_two_processes_train_as_one_does(case, tmp_path, capsys):
    """Same losses; one writer; going on with a process more or less.

    At last the loss of one process is not finite, which ends both in one sentence.
    """
    train(**case('lstm', 'alone'))
    train(**case('attention', 'alone with attention'))
    train(**case('lstm', 'then two', last_epoch=1))
    whole, resumed = case('critical', 'whole'), case('critical', 'resumed')
    both = [case('lstm', 'both'), case('attention', 'both with attention'), whole]
    cases = [*both, case('lstm', 'then two'), case('lstm', 'then one', last_epoch=2),
             {**resumed, 'last_epoch': 2}, resumed]
    broken = case('lstm', 'broken', breaks=True)
    process = torchrun([*cases, broken], tmp_path)
    out, errors = output_of(process)
    assert process.returncode and errors.count('The loss is nan in epoch 2, batch 1') == 1, errors
    assert 'by peer' not in errors and 'Another process' not in errors
    assert 'last_epoch1.pt' in os.listdir(run_folder(broken))
    assert out.count('Data: ') == out.count('2 processes') == len(cases) + 1
    assert out.count('\nepoch ') == 3 * len(both) + 2 + 2 + 2 + 1 + 1
    for run in both:
        names = [name.split('_')[0] for name in os.listdir(run_folder(run))]
        assert names.count('last') == names.count('best') == 1 and 'partial' not in names
    capsys.readouterr()
    train(**case('lstm', 'then one'))
    assert 'Going on from' in capsys.readouterr().out
    for kind, name, other in (('lstm', 'both', 'alone'), ('lstm', 'then two', 'alone'),
                              ('lstm', 'then one', 'alone'),
                              ('attention', 'both with attention', 'alone with attention')):
        assert_close(history(case(kind, name)), history(case(kind, other)))
    assert history(resumed) == history(whole) and 'reward' in history(whole)[1]
    weights, others = (torch.load(run_folder(run) / 'last_epoch3.pt')['model_state_dict']
                       for run in (whole, resumed))
    assert all(torch.equal(weights[name], others[name]) for name in weights)


@needs_proc
def test_sigterm_to_torchrun_ends_all_in_a_sentence(case, tmp_path):
    process = torchrun([case('endless')], tmp_path)
    next(line for line in process.stdout if line.startswith('epoch 1/'))
    process.send_signal(signal.SIGTERM)
    _, errors = output_of(process)
    assert process.returncode and errors.count('Stopped. ') == 1


@pytest.mark.parametrize('size', [2, 3, 7])
def test_shares_are_those_of_the_same_batches(size, monkeypatch):
    monkeypatch.setattr(distributed, 'worldSize', lambda: size)
    shares = []
    for number in range(size):
        monkeypatch.setattr(distributed, 'rank', lambda: number)
        shares.append(list(ShareOfBatches(11, 4, seed=1)))
    order = list(range(11))
    random.Random('1 0').shuffle(order)
    assert {len(share) for share in shares} == {3}
    for first, batch in zip((0, 4, 8), zip(*shares)):
        assert all(batch)
        learned = [index for share in batch for index, _, is_learned in share if is_learned]
        assert sorted(learned) == sorted(order[first:first + 4])


def test_processes_drop_out_differently(monkeypatch):
    drawn = []
    for number in range(2):
        for module in (distributed, model):
            monkeypatch.setattr(module, 'rank', lambda: number)
        model.seedEverything(1, 1)
        drawn += [random.random(), float(torch.rand(1))]
    assert len(set(drawn)) == 4


def main():
    with open(os.environ['CASES'], encoding='utf-8') as f:
        for case in json.load(f):
            train(**case)


if __name__ == '__main__':
    runScript(main)
