"""Measurements that are run by hand, in a small form, so that they work where they are needed."""
import importlib
import os

import pytest
from leftovers import needs_proc

from utils import model
from utils.files.ownFiles import PROJECT


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(PROJECT, 'tests', 'tools'))


@pytest.mark.parametrize('task', [1, 2, 3, 4])
def test_the_benchmark_of_training_steps(task, tools, monkeypatch, capsys):
    import benchmark
    monkeypatch.setattr(benchmark, 'BATCH', 4)
    script = importlib.import_module(f'Exercise_Train_task{task}')
    monkeypatch.setattr(script, 'config', {
        **script.config, 'vocabulary_size': 60, 'embedding_size': 8, 'hidden_state_sizes': 16,
        'number_of_cnn_features': 32})
    monkeypatch.setattr(model, 'hindrance', lambda name, device: (
        'a CPU is slow at it' if name == 'float16' else ''))
    benchmark.training(task, repetitions=1)
    out = capsys.readouterr().out
    for part in (f'task {task}: ', ' captions/s in training', 'by bfloat16', 'by plain'):
        assert part in out


@needs_proc
def test_the_rehearsal_of_a_training(tools, tmp_path, capsys):
    """It says how long the first batch took and what memory, and leaves nothing."""
    import rehearsal
    (first, seconds, waiting, peak), = rehearsal.main(str(tmp_path), 40, 1, validation=8,
                                                      starts=['first'])
    assert 0 < first < 120 and 0 <= waiting < seconds and peak > 1e8
    assert 'loader alone' in capsys.readouterr().out and os.listdir(tmp_path) == []
