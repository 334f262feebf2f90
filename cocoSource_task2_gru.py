"""Task 2: captions from a GRU, or from simple cells, of any number of layers. New over task 1: the cell, the layers."""
import torch

import cocoSource_xcnnfused
from cocoSource_xcnnfused import RecurrentCell, RecurrentLayers, RNNsimpleCell, loss_fn  # noqa: F401 (loss_fn is offered)


class GRUCell(RecurrentCell):
    """The gated recurrent unit, with the reset gate before the product (Cho et al. 2014; nn.GRUCell has it after).

        u  = σ([x, h] W_u + b_u)            update gate
        r  = σ([x, h] W_r + b_r)            reset gate
        h' = u·h + (1 - u)·tanh([x, r·h] W + b)
    """

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight_u, self.bias_u = self.new_weight(), self.new_bias()
        self.weight_r, self.bias_r = self.new_weight(), self.new_bias()
        self.weight, self.bias = self.new_weight(), self.new_bias()

    def forward(self, x, hidden_state):
        """The new state [B, H] from the input x [B, input_size] and the old state [B, H]."""
        return self.next_state(x, hidden_state)

    def stacked_parameters(self):
        return (torch.cat([self.weight_u, self.weight_r, self.weight], dim=1),
                torch.cat([self.bias_u, self.bias_r, self.bias], dim=1))

    def step(self, xW, state, W_h):
        h, = state
        gates = 2 * self.hidden_state_size                                       # columns of u and r
        u, r = torch.sigmoid(xW[:, :gates] + h @ W_h[:, :gates]).chunk(2, dim=1)
        candidate = torch.tanh(xW[:, gates:] + (r * h) @ W_h[:, gates:])
        return u * h + (1 - u) * candidate,


class RNN(RecurrentLayers):
    """Any number of layers of one type of cell.

    Args:
        input_size: E + M.
        hidden_state_size: H, the same in all layers.
        num_rnn_layers: L, at least 1.
        cell_type: a key of `cell_types`.

    Raises:
        ValueError: an unknown cell type, or less than one layer.
    """
    cell_types = {'RNN': RNNsimpleCell, 'GRU': GRUCell}

    def __init__(self, input_size, hidden_state_size, num_rnn_layers, cell_type='GRU'):
        if cell_type not in self.cell_types:
            raise ValueError(f"cell type {cell_type!r} is unknown here; known are {', '.join(self.cell_types)}")
        if num_rnn_layers < 1:
            raise ValueError(f'num_rnn_layers is {num_rnn_layers}; it must be at least 1')
        input_size_list = [input_size] + [hidden_state_size] * (num_rnn_layers - 1)
        super().__init__([self.cell_types[cell_type](hidden_state_size, size) for size in input_size_list])


class ImageCaptionModel(cocoSource_xcnnfused.ImageCaptionModel):
    """Task 1's model around `RNN`: `cellType` and `num_rnn_layers` of config are free."""
    simplifiedrnn = False

    def build_rnn(self, input_size):
        return RNN(input_size, self.hidden_state_sizes, self.num_rnn_layers, self.cell_type)
