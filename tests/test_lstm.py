"""The LSTM cell against its equations, and against torch's own cell."""
import torch
from cells import HIDDEN, INPUT, check_equations, check_initial_values, random_cell

from cocoSource_task3_lstm import LSTMCell


def lstm(cell, x, state):
    """f,i,o = σ([x,h]W_f,i,o+b_f,i,o), c' = f·c + i·tanh([x,h]W+b), h' = o·tanh(c')"""
    h, c = state[:, :HIDDEN], state[:, HIDDEN:]
    xh = torch.cat([x, h], dim=1)
    f = 1 / (1 + torch.exp(-(xh @ cell.weight_f + cell.bias_f)))
    i = 1 / (1 + torch.exp(-(xh @ cell.weight_i + cell.bias_i)))
    o = 1 / (1 + torch.exp(-(xh @ cell.weight_o + cell.bias_o)))
    c = f * c + i * torch.tanh(xh @ cell.weight + cell.bias)
    return torch.cat([o * torch.tanh(c), c], dim=1)


def test_torchs_cell_with_copied_weights():
    cell, x, state = random_cell(LSTMCell)
    theirs = torch.nn.LSTMCell(INPUT, HIDDEN).double()
    gates = ('_i', '_f', '', '_o')  # torch's order
    weight = torch.cat([getattr(cell, 'weight' + gate) for gate in gates], dim=1).t()
    theirs.weight_ih.data, theirs.weight_hh.data = weight[:, :INPUT], weight[:, INPUT:]
    theirs.bias_ih.data = torch.cat([getattr(cell, 'bias' + gate) for gate in gates], dim=1)[0]
    theirs.bias_hh.data.zero_()
    expected = torch.cat(theirs(x, state.chunk(2, dim=1)), dim=1)
    torch.testing.assert_close(cell(x, state), expected)


def test_the_lstm_cell():
    check_equations(LSTMCell, lstm)
    names = [f'{kind}{gate}' for gate in ('_f', '_i', '_o', '') for kind in ('weight', 'bias')]
    check_initial_values(LSTMCell, names, 2.0)
