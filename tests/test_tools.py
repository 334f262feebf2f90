"""The measurements that are run by hand, in a small form, so that they are known to work when a GPU is there."""
import os

import pytest
import torch
from leftovers import needs_proc

from utils import model
from utils.files.project import PROJECT
from utils.networks import precision


@pytest.fixture
def tools(monkeypatch):
    monkeypatch.syspath_prepend(os.path.join(PROJECT, 'tests', 'tools'))


def test_the_benchmark_of_training_steps(tools, monkeypatch, capsys):
    """Every task in every precision but float16, for which a CPU has no use; it says what it found."""
    import benchmark
    for name, value in {'V': 60, 'E': 8, 'H': 16, 'D': 32, 'BATCH': 4, 'REPETITIONS': 1}.items():
        monkeypatch.setattr(benchmark, name, value)
    for module in (benchmark, model):
        monkeypatch.setattr(module, 'hindrance', lambda name, device: '' if name != precision.FLOAT16 else 'it is slow')
    monkeypatch.setattr(torch, 'rand', lambda *shape, rand=torch.rand: rand(*(min(size, 64) for size in shape)))
    benchmark.training()
    said = capsys.readouterr().out.splitlines()
    for task in (1, 2, 3, 4):
        lines = [line for line in said if line.startswith(f'task {task}')]
        assert [line.split(':')[0] for line in lines] == [f'task {task}, float32', f'task {task}, bfloat16', f'task {task}']
        assert all(int(line.split()[3].replace(',', '')) > 50 for line in lines[:2])
        assert '× plain' in lines[-1] and 'bfloat16' in lines[-1] and ('× nn.' in lines[-1]) == (task in (2, 3))


@needs_proc
def test_the_rehearsal_of_a_training(tools, tmp_path, capsys):
    """It starts twice, says how long the first batch took and what memory, and leaves nothing."""
    import rehearsal
    outcomes = rehearsal.main(str(tmp_path), 40, 1, validation=8, processes=1)
    assert set(outcomes) == {(1, 'first'), (1, 'second')} and os.listdir(tmp_path) == []
    for outcome, peak in outcomes.values():
        assert outcome['batches'] == 1 and 0 < outcome['first'] < 120 and peak > 10 ** 8
    assert 'loader alone' in capsys.readouterr().out
