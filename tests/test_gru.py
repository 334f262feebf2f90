"""The GRU cell against its equations, written out in float64, gate by gate.

    PYTHONPATH=. pytest tests/test_gru.py
"""
import pytest
import torch

from cocoSource_task2_gru import GRUCell

BATCH, INPUT, HIDDEN = 3, 5, 4  # unequal, so that a transposed matrix fails
PARAMETERS = ('weight_u', 'bias_u', 'weight_r', 'bias_r', 'weight', 'bias')


def reference(p, x, h):
    """u = σ([x,h]W_u+b_u), r = σ([x,h]W_r+b_r), h' = u·h + (1-u)·tanh([x, r·h]W+b), element by element in float64."""
    p = {name: value.double() for name, value in p.items()}
    x, h = x.double(), h.double()
    xh = torch.cat([x, h], dim=1)
    u = 1 / (1 + torch.exp(-(xh @ p['weight_u'] + p['bias_u'])))
    r = 1 / (1 + torch.exp(-(xh @ p['weight_r'] + p['bias_r'])))
    candidate = torch.tanh(torch.cat([x, r * h], dim=1) @ p['weight'] + p['bias'])
    return u * h + (1 - u) * candidate


def random_parameters(seed):
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(1 if name.startswith('bias') else INPUT + HIDDEN, HIDDEN, generator=generator)
            for name in PARAMETERS}


def cell_with(parameters):
    cell = GRUCell(HIDDEN, INPUT)
    for name, value in parameters.items():
        getattr(cell, name).data = value
    return cell


def random_input(seed):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(BATCH, INPUT, generator=generator), torch.randn(BATCH, HIDDEN, generator=generator)


def check(parameters, seed=0):
    x, h = random_input(seed)
    torch.testing.assert_close(cell_with(parameters)(x, h).double(), reference(parameters, x, h), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('zero', PARAMETERS)
def test_without_each_parameter(zero):
    check({name: torch.zeros_like(value) if name == zero else value for name, value in random_parameters(1).items()})


@pytest.mark.parametrize('seed', range(10))
def test_random_parameters(seed):
    check(random_parameters(seed), seed)


def test_update_gate_open_keeps_the_state():
    x, h = random_input(3)
    cell = cell_with({**random_parameters(3), 'bias_u': torch.full((1, HIDDEN), 100.0)})
    torch.testing.assert_close(cell(x, h), h)


def test_reset_gate_closed_forgets_the_state_before_the_product():
    x, h = random_input(4)
    parameters = {**random_parameters(4), 'bias_u': torch.full((1, HIDDEN), -100.0),
                  'bias_r': torch.full((1, HIDDEN), -100.0)}
    expected = torch.tanh(x @ parameters['weight'][:INPUT] + parameters['bias'])
    torch.testing.assert_close(cell_with(parameters)(x, h), expected)


def test_replaced_parameters_are_used():
    x, h = random_input(5)
    cell = cell_with(random_parameters(5))
    cell(x, h)
    for name, value in random_parameters(6).items():
        setattr(cell, name, torch.nn.Parameter(value))
    torch.testing.assert_close(cell(x, h).double(), reference(random_parameters(6), x, h), rtol=1e-5, atol=1e-5)


def test_initial_values():
    cell = GRUCell(hidden_state_size=400, input_size=300)
    assert {name for name, _ in cell.named_parameters()} == set(PARAMETERS)
    for name in PARAMETERS:
        value = getattr(cell, name).detach()
        if name.startswith('bias'):
            assert value.shape == (1, 400) and not value.any()
        else:
            assert value.shape == (700, 400)
            assert abs(value.mean()) < 1e-3 and abs(value.var() * 700 - 1) < 0.02
