"""The simple cell, the GRU cell and the LSTM cell against their equations, and how they start."""
import torch

from cocoSource_task2_gru import GRUCell, RNNsimpleCell
from cocoSource_task3_lstm import LSTMCell

BATCH, INPUT, HIDDEN = 3, 5, 4  # unequal, so that a transposed matrix fails


def check_equations(kind, reference):
    """A cell's step is `reference(cell, x, state)`, also where its parameters are replaced."""
    torch.manual_seed(1)
    cell = kind(HIDDEN, INPUT).double()
    x = torch.randn(BATCH, INPUT).double().requires_grad_()
    state = torch.randn(BATCH, kind.state_vectors * HIDDEN).double().requires_grad_()
    for _ in range(2):
        for name, parameter in list(cell.named_parameters()):
            setattr(cell, name, torch.nn.Parameter(torch.randn_like(parameter)))
        torch.testing.assert_close(cell(x, state), reference(cell, x, state))
        assert torch.autograd.gradcheck(cell, (x, state))


def check_initial_values(kind, names, bias):
    """Weights of variance 1/n, n their rows; biases all of one value."""
    cell = kind(hidden_state_size=400, input_size=300)
    assert [name for name, _ in cell.named_parameters()] == names
    for name, parameter in cell.named_parameters():
        if name.startswith('bias'):
            assert torch.equal(parameter, torch.full((1, 400), bias))
        else:
            assert parameter.shape == (700, 400)
            assert abs(parameter.mean()) < 1e-3 and abs(parameter.var() * 700 - 1) < 0.02


def test_the_simple_cell():
    check_equations(RNNsimpleCell, lambda cell, x, h: torch.tanh(
        torch.cat([x, h], 1) @ cell.weight + cell.bias))
    check_initial_values(RNNsimpleCell, ['weight', 'bias'], 0.0)


def gru(cell, x, h):
    """u = σ([x,h]W_u+b_u), r = σ([x,h]W_r+b_r), h' = u·h + (1-u)·tanh([x, r·h]W+b)"""
    xh = torch.cat([x, h], dim=1)
    u = torch.sigmoid(xh @ cell.weight_u + cell.bias_u)
    r = torch.sigmoid(xh @ cell.weight_r + cell.bias_r)
    candidate = torch.tanh(torch.cat([x, r * h], dim=1) @ cell.weight + cell.bias)
    return u * h + (1 - u) * candidate


def test_the_gru_cell():
    check_equations(GRUCell, gru)
    check_initial_values(
        GRUCell, ['weight_u', 'bias_u', 'weight_r', 'bias_r', 'weight', 'bias'], 0.0)
    assert GRUCell(HIDDEN, INPUT).hidden_state_sizes == HIDDEN


def lstm(cell, x, state):
    """f,i,o = σ([x,h]W_f,i,o+b_f,i,o), c' = f·c + i·tanh([x,h]W+b), h' = o·tanh(c')"""
    h, c = state[:, :HIDDEN], state[:, HIDDEN:]
    xh = torch.cat([x, h], dim=1)
    f = torch.sigmoid(xh @ cell.weight_f + cell.bias_f)
    i = torch.sigmoid(xh @ cell.weight_i + cell.bias_i)
    o = torch.sigmoid(xh @ cell.weight_o + cell.bias_o)
    c = f * c + i * torch.tanh(xh @ cell.weight + cell.bias)
    return torch.cat([o * torch.tanh(c), c], dim=1)


def test_the_lstm_cell():
    check_equations(LSTMCell, lstm)
    names = [f'{kind}{gate}' for gate in ('_f', '_i', '_o', '') for kind in ('weight', 'bias')]
    check_initial_values(LSTMCell, names, 2.0)
