"""The LSTM cell against its equations, written out in float64, and against torch's own cell.

    PYTHONPATH=. pytest tests/test_lstm.py
"""
import itertools

import pytest
import torch

from cocoSource_task3_lstm import LSTMCell

BATCH, INPUT, HIDDEN = 3, 5, 4  # unequal, so that a transposed matrix fails
PARAMETERS = ('weight_f', 'bias_f', 'weight_i', 'bias_i', 'weight_o', 'bias_o', 'weight', 'bias')


def reference(p, x, state):
    """f, i, o = σ([x,h]W_f,i,o + b_f,i,o), c' = f·c + i·tanh([x,h]W+b), h' = o·tanh(c'); the state is [h, c]."""
    p = {name: value.double() for name, value in p.items()}
    x, state = x.double(), state.double()
    h, c = state[:, :HIDDEN], state[:, HIDDEN:]
    xh = torch.cat([x, h], dim=1)
    f, i, o = (1 / (1 + torch.exp(-(xh @ p[f'weight_{gate}'] + p[f'bias_{gate}']))) for gate in 'fio')
    c = f * c + i * torch.tanh(xh @ p['weight'] + p['bias'])
    return torch.cat([o * torch.tanh(c), c], dim=1)


def random_parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(1 if name.startswith('bias') else INPUT + HIDDEN, HIDDEN, generator=generator)
            for name in PARAMETERS}


def cell_with(parameters):
    cell = LSTMCell(HIDDEN, INPUT)
    for name, value in parameters.items():
        getattr(cell, name).data = value
    return cell


def random_input(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, INPUT, generator=generator), torch.randn(BATCH, 2 * HIDDEN, generator=generator)


def check(parameters, seed=0):
    x, state = random_input(seed)
    torch.testing.assert_close(cell_with(parameters)(x, state).double(), reference(parameters, x, state),
                               rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('zero', PARAMETERS)
def test_without_each_parameter(zero):
    check({name: torch.zeros_like(value) if name == zero else value for name, value in random_parameters(1).items()})


@pytest.mark.parametrize('seed', range(10))
def test_random_parameters(seed):
    check(random_parameters(seed), seed)


@pytest.mark.parametrize('forget, write', list(itertools.product((-100.0, 100.0), repeat=2)))
def test_gates_shut_and_open(forget, write):
    x, state = random_input(2)
    parameters = {**random_parameters(2), 'bias_f': torch.full((1, HIDDEN), forget),
                  'bias_i': torch.full((1, HIDDEN), write), 'bias_o': torch.full((1, HIDDEN), 100.0)}
    candidate = torch.tanh(torch.cat([x, state[:, :HIDDEN]], dim=1) @ parameters['weight'] + parameters['bias'])
    memory = (forget > 0) * state[:, HIDDEN:] + (write > 0) * candidate
    torch.testing.assert_close(cell_with(parameters)(x, state), torch.cat([torch.tanh(memory), memory], dim=1))


def test_torch_cell_with_copied_weights():
    parameters = random_parameters(7)
    x, state = random_input(7)
    theirs = torch.nn.LSTMCell(INPUT, HIDDEN)
    order = ('_i', '_f', '', '_o')  # torch's gate order: i, f, g, o
    weight = torch.cat([parameters['weight' + gate] for gate in order], dim=1).t()
    theirs.weight_ih.data, theirs.weight_hh.data = weight[:, :INPUT], weight[:, INPUT:]
    theirs.bias_ih.data = torch.cat([parameters['bias' + gate] for gate in order], dim=1)[0]
    theirs.bias_hh.data.zero_()
    expected = torch.cat(theirs(x, (state[:, :HIDDEN], state[:, HIDDEN:])), dim=1)
    torch.testing.assert_close(cell_with(parameters)(x, state), expected)


def test_replaced_parameters_are_used():
    x, state = random_input(5)
    cell = cell_with(random_parameters(5))
    cell(x, state)
    for name, value in random_parameters(6).items():
        setattr(cell, name, torch.nn.Parameter(value))
    torch.testing.assert_close(cell(x, state).double(), reference(random_parameters(6), x, state), rtol=1e-5, atol=1e-5)


def test_initial_values():
    cell = LSTMCell(hidden_state_size=400, input_size=300)
    assert {name for name, _ in cell.named_parameters()} == set(PARAMETERS)
    for name in PARAMETERS:
        value = getattr(cell, name).detach()
        if name.startswith('bias'):
            assert value.shape == (1, 400) and (value == 2).all()
        else:
            assert value.shape == (700, 400)
            assert abs(value.mean()) < 1e-3 and abs(value.var() * 700 - 1) < 0.02
