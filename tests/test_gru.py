"""The simple cell and the GRU cell against their equations."""
import torch
from cells import HIDDEN, INPUT, check_equations, check_initial_values

from cocoSource_task2_gru import GRUCell, RNNsimpleCell


def test_the_simple_cell():
    check_equations(RNNsimpleCell, lambda cell, x, h: torch.tanh(
        torch.cat([x, h], 1) @ cell.weight + cell.bias))
    check_initial_values(RNNsimpleCell, ['weight', 'bias'], 0.0)


def gru(cell, x, h):
    """u = σ([x,h]W_u+b_u), r = σ([x,h]W_r+b_r), h' = u·h + (1-u)·tanh([x, r·h]W+b)"""
    xh = torch.cat([x, h], dim=1)
    u = 1 / (1 + torch.exp(-(xh @ cell.weight_u + cell.bias_u)))
    r = 1 / (1 + torch.exp(-(xh @ cell.weight_r + cell.bias_r)))
    candidate = torch.tanh(torch.cat([x, r * h], dim=1) @ cell.weight + cell.bias)
    return u * h + (1 - u) * candidate


def test_the_gru_cell():
    check_equations(GRUCell, gru)
    check_initial_values(
        GRUCell, ['weight_u', 'bias_u', 'weight_r', 'bias_r', 'weight', 'bias'], 0.0)
    assert GRUCell(HIDDEN, INPUT).hidden_state_sizes == HIDDEN
