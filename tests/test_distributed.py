"""Training by two gloo processes against training by one; how they end together.

torchrun starts this file as a script, which trains what a JSON file lists. Scores are those of a scorer without Java.
"""
import contextlib
import importlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
from unittest import mock

import pytest
import torch
from test_scripts import copy_of_project

from utils import metrics
from utils import model as model_module
from utils import trainer as trainer_module
from utils.data.captionDataset import EpochSampler
from utils.dataLoader import DataLoaderWrapper
from utils.files import runLock
from utils.files.project import PROJECT
from utils.model import Model
from utils.plotter import Plotter
from utils.processes import distributed
from utils.processes.distributed import ShareOfBatches
from utils.saverRestorer import SaverRestorer
from utils.scripts import start
from utils.scripts.endings import runScript

TASKS = {'cocoSource_xcnnfused': {'cellType': 'RNN', 'num_rnn_layers': 1}, 'cocoSource_task2_gru': {'cellType': 'GRU'},
         'cocoSource_task3_lstm': {'cellType': 'LSTM', 'learningRecipe': 'informedStart'},
         'cocoSource_task4_attention': {'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'}}
# 9 images in batches of 4 leave one image for the last batch, of 6 an odd number; of 1, one process never has an image
SAME_LOSSES = [*[(task, 4, 4) for task in TASKS], ('cocoSource_task2_gru', 25, 6), ('cocoSource_task4_attention', 25, 1)]


class Scorer:
    """In place of `METEOR` and of `CaptionScorer`: the more different words, the better."""

    def __init__(self, annotations=None, meteor=None):
        if meteor is None:
            print('a scorer starts', file=sys.stderr)  # where every process may speak

    def score(self, results):
        words = {word for result in results for word in result['caption'].split()}
        return {'meteor': len(words) / 100, 'bleu_4': 0.0}

    def close(self):
        pass


def train(module, config, model_param, frozen=True, last_epoch=None, breaks=False):
    """A training script's `main`.

    Args:
        module: name of the model's file.
        frozen: whether dropout is off and batch normalisation does not learn.
        last_epoch: after which the run is left, or None.
        breaks: whether the loss of process 1 is not finite in epoch 2.
    """
    model_class = importlib.import_module(module).ImageCaptionModel
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: runLock._locks and runLock._locks.pop().close())  # as if the process ended here
        stack.enter_context(mock.patch.object(start, 'findJava', lambda: None))
        for name in ('METEOR', 'CaptionScorer'):
            stack.enter_context(mock.patch.object(metrics, name, Scorer))
        stack.enter_context(mock.patch.object(Plotter, 'plot', lambda self, history: None))  # which takes longer than an epoch
        if frozen:
            stack.enter_context(mock.patch.object(model_class, 'train', lambda net, mode=True: torch.nn.Module.train(net, False)))
        parameters = start.prepare(model_param, config)
        loader = DataLoaderWrapper(config, parameters)
        model = Model(loader.config, parameters, model_class)
        start.announce(parameters, loader, model)
        saver = SaverRestorer(loader.config, parameters)
        saver.restore(model)
        trainer = trainer_module.Trainer(model, parameters, loader.config, loader, saver)
        if last_epoch:
            stack.enter_context(mock.patch.object(trainer_module.Trainer, 'epochs', last_epoch))
        if breaks and distributed.rank() == 1:
            trainer.lossOfParts = lambda batch, losses=trainer.lossOfParts: [
                loss * (float('nan') if model.scheduler.last_epoch == 1 else 1) for loss in losses(batch)]
        trainer.train()


def torchrun(script, *arguments):
    """The process of torchrun, which runs two processes that meet at a port of their own; --standalone has one for all."""
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join([PROJECT, os.path.dirname(__file__)]), 'OMP_NUM_THREADS': '1'}
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    command = [sys.executable, '-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_addr=127.0.0.1',
               f'--master_port={port}', script, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, universal_newlines=True,
                            start_new_session=True)


def start_two(cases, tmp_path):
    path = tmp_path / 'cases.json'
    path.write_text(json.dumps(cases), encoding='utf-8')
    return torchrun(__file__, str(path))


def output_of(process):
    try:
        return process.communicate()  # however long a busy machine takes
    finally:
        process.terminate()


def run_folder(model_param):
    models = model_param['modelsDir']
    name, = (name for name in os.listdir(models) if name.startswith(model_param['modelName'].rstrip('/') + '_data-'))
    return os.path.join(models, name)


def history(model_param):
    with open(os.path.join(run_folder(model_param), 'history.json')) as f:
        return json.load(f)


def assert_close(history, other):
    assert len(history) == len(other)
    for entry, wanted in zip(history, other):
        for key in ('train_loss', 'val_loss', 'learning_rate'):
            assert entry[key] == pytest.approx(wanted[key], abs=1e-5)


def test_two_processes_train_as_one_does(course_folder, config, model_param, tmp_path, capsys):
    """The same losses with dropout off; one writer; going on, with processes added and taken away in between."""
    course_folder(n_train=9)
    alone, both = [], []
    for number, (task, truncated, batch_size) in enumerate(SAME_LOSSES):
        for cases, name in ((alone, 'alone'), (both, 'both')):
            cases.append({'module': task, 'config': {**config, **TASKS[task], 'truncated_backprop_length': truncated},
                          'model_param': {**model_param, 'batch_size': batch_size, 'modelName': f'{name}{number}/'}})
    for case in alone:
        train(**case)

    def case(name, **options):
        return {'module': 'cocoSource_task2_gru', 'config': config, 'model_param': {**model_param, 'modelName': name}, **options}

    train(**case('one then two/', last_epoch=1))
    train(**case('one/'))
    capsys.readouterr()
    dropped = {'module': 'cocoSource_task4_attention', 'config': {**config, **TASKS['cocoSource_task4_attention']}, 'frozen': False}
    cases = [*both, case('one then two/'), case('two then one/', last_epoch=2), case('whole/', **dropped),
             case('resumed/', **dropped, last_epoch=2), case('resumed/', **dropped)]
    critical = {'config': {**config, 'selfCriticalEpochs': 2}, 'frozen': False}
    few = {**model_param, 'numbOfEpochs': 1, 'batch_size': 3}                    # of three images one process has two, one has one
    cases += [case('', **critical, model_param={**few, 'modelName': name}, **options) for name, options in (
        ('critical whole/', {}), ('critical resumed/', {'last_epoch': 2}), ('critical resumed/', {}))]
    out, errors = output_of(start_two(cases, tmp_path))
    assert 'Traceback' not in errors, errors
    assert out.count('Data: ') == errors.count('a scorer starts') == out.count('2 processes') == len(cases)
    assert sum(line.startswith('epoch ') for line in out.splitlines()) == 3 * len(both) + 2 + 2 + 3 + 2 + 1 + 3 + 2 + 1
    for one, two in zip(alone, both):
        assert_close(history(two['model_param']), history(one['model_param']))
        files = os.listdir(run_folder(two['model_param']))
        assert sum(name.startswith('last') for name in files) == sum(name.startswith('best') for name in files) == 1
        assert not any(name.startswith('partial') for name in files)

    for prefix in ('', 'critical '):
        whole, resumed = ({**model_param, 'modelName': prefix + name} for name in ('whole/', 'resumed/'))
        assert history(resumed) == history(whole)
        weights, others = (torch.load(os.path.join(run_folder(run), 'last_epoch3.pt'))['model_state_dict']
                           for run in (whole, resumed))
        assert all(torch.equal(weights[name], others[name]) for name in weights)
    assert 'reward' in history(whole)[1]
    train(**case('two then one/'))
    assert 'Going on from' in capsys.readouterr().out
    for name in ('one then two/', 'two then one/'):
        assert_close(history({**model_param, 'modelName': name}), history({**model_param, 'modelName': 'one/'}))


def test_a_loss_of_one_process_that_is_not_finite_ends_both_in_its_sentence(course_folder, config, model_param, tmp_path):
    course_folder(n_train=9)
    case = {'module': 'cocoSource_task2_gru', 'config': config, 'model_param': model_param, 'breaks': True}
    process = start_two([case], tmp_path)
    _, errors = output_of(process)
    assert process.returncode and errors.count('The loss is nan in epoch 2, batch 1') == 1
    assert 'by peer' not in errors and 'Another process' not in errors
    assert 'last_epoch1.pt' in os.listdir(run_folder(model_param))


def test_a_missing_data_folder_is_said_once(tmp_path):
    process = torchrun(copy_of_project(tmp_path / 'project', str(tmp_path / 'nowhere'), epochs=1))
    _, errors = output_of(process)
    assert process.returncode and errors.count('nowhere/ does not exist') == 1 and 'by peer' not in errors


@pytest.mark.skipif(os.name != 'posix', reason='these signals are POSIX')
def test_sigterm_to_torchrun_ends_all_in_a_sentence(course_folder, config, model_param, tmp_path):
    course_folder(n_train=9)
    model_param = {**model_param, 'numbOfEpochs': 10000}
    process = start_two([{'module': 'cocoSource_task2_gru', 'config': config, 'model_param': model_param}], tmp_path)
    for line in process.stdout:
        if line.startswith('epoch 1/'):
            break
    process.send_signal(signal.SIGTERM)
    _, errors = output_of(process)
    assert process.returncode and errors.count('Stopped. ') == 1
    workers = [int(path.suffix[1:]) for path in tmp_path.glob('cases.json.*')]
    assert len(workers) == 2
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)


@pytest.mark.parametrize('size', [1, 2, 3, 7])
def test_shares_are_those_of_the_same_batches(size, monkeypatch):
    monkeypatch.setattr(distributed, 'worldSize', lambda: size)
    sampler = EpochSampler(11, seed=1)
    shares = []
    for number in range(size):
        monkeypatch.setattr(distributed, 'rank', lambda: number)
        shares.append(list(ShareOfBatches(sampler, 4, drop_last=False)))
    order = list(sampler)
    for first, *batch in zip(range(0, 11, 4), *shares):
        assert len({len(share) for share in batch}) == 1 and batch[0]
        learned = [key for share in batch for *key, learned in share if learned]
        assert sorted(learned) == sorted(map(list, order[first:first + 4]))


@pytest.mark.parametrize('learned', [True, False])
def test_every_share_runs_the_network_as_often(learned, course_folder, config, model_param):
    """As often as the longest caption of all has parts, with a gradient for every parameter; what stands in counts nothing."""
    course_folder()
    data = DataLoaderWrapper(config, model_param)
    loader = data.myDataDicts['train']
    model = Model(data.config, model_param, importlib.import_module('cocoSource_task2_gru').ImageCaptionModel)
    model.net.eval()
    runs = []
    model.net.inputLayer.register_forward_hook(lambda *_: runs.append(1))
    batch = loader.collate_fn([loader.dataset[index, 1, learned] for index in (0, 1)])
    loss = distributed.LossOfShare(model)(batch, parts=3)
    loss.backward()
    gradients = [parameter.grad for parameter in model.net.parameters()]
    assert batch['numbOfTruncatedSequences'] == 1 and len(runs) == 3 and all(gradient is not None for gradient in gradients)
    assert float(loss.detach()) == (float(sum(model.lossOfParts(batch)).detach()) if learned else 0)
    assert any(gradient.any() for gradient in gradients) == learned


def test_processes_drop_out_differently(monkeypatch):
    drawn = []
    for number in range(2):
        for module in (distributed, model_module):
            monkeypatch.setattr(module, 'rank', lambda: number)
        model_module.seedEverything(1, 1)
        drawn.append((random.random(), float(torch.rand(1))))
    assert drawn[0][0] != drawn[1][0] and drawn[0][1] != drawn[1][1]


def main():
    with open(f'{sys.argv[1]}.{os.getpid()}', 'w'):  # says which processes there were
        pass
    with open(sys.argv[1], encoding='utf-8') as f:
        for case in json.load(f):
            train(**case)


if __name__ == '__main__':
    runScript(main)
