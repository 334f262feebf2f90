"""Task 2: captions from GRU or simple cells, in any number of layers.

The order of calls is task 1's. New are the GRU cell, and any number of layers.
"""
import torch

import cocoSource_xcnnfused
from cocoSource_xcnnfused import (  # noqa: F401 (loss_fn is offered here too)
    RecurrentCell,
    RecurrentLayers,
    RNNsimpleCell,
    loss_fn,
)


class GRUCell(RecurrentCell):
    """The gated recurrent unit (Cho et al. 2014). The reset gate acts before the product, in
    torch's nn.GRUCell after it.

        u  = σ([x, h] W_u + b_u)            update gate
        r  = σ([x, h] W_r + b_r)            reset gate
        h' = u·h + (1 - u)·tanh([x, r·h] W + b)
    """
    gates = ('_u', '_r', '')

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.hidden_state_sizes = hidden_state_size  # alias that the handed-out code uses
        self.weight_u, self.bias_u = self.new_weight(), self.new_bias()
        self.weight_r, self.bias_r = self.new_weight(), self.new_bias()
        self.weight, self.bias = self.new_weight(), self.new_bias()

    def gate_weights(self, constant_input=None):
        """As in all cells, but W_h in two parts: that of u and r, which multiplies h, and the
        candidate's, which multiplies r·h."""
        W_x, W_h, b = super().gate_weights(constant_input)
        H = self.hidden_state_size
        return W_x, W_h.split([2 * H, H], dim=1), b

    def equations(self, xW, h, W_h):
        W_ur, W_c = W_h
        xW_u, xW_r, xW_c = xW.chunk(3, dim=1)
        hW_u, hW_r = (h @ W_ur).chunk(2, dim=1)
        u = torch.sigmoid(xW_u + hW_u)                                   # update gate
        r = torch.sigmoid(xW_r + hW_r)                                   # reset gate
        candidate = torch.tanh(xW_c + (r * h) @ W_c)
        return u * h + (1 - u) * candidate


class RNN(RecurrentLayers):
    """Layers of one type of cell. The first is given the word and the image, each further one the
    hidden state of the layer below.

    Args:
        input_size: E + M.
        hidden_state_size: H, the same in all layers.
        num_rnn_layers: L, at least 1.
        cell_type: a key of `cell_types`.

    Raises:
        ValueError: an unknown cell type, or fewer than one layer.
    """
    cell_types = {'RNN': RNNsimpleCell, 'GRU': GRUCell}

    def __init__(self, input_size, hidden_state_size, num_rnn_layers, cell_type='GRU'):
        if cell_type not in self.cell_types:
            raise ValueError(f'cell type {cell_type!r} is unknown here; known are '
                             f"{', '.join(self.cell_types)}")
        if num_rnn_layers < 1:
            raise ValueError(f'num_rnn_layers is {num_rnn_layers}; it must be at least 1')
        input_size_list = [input_size] + [hidden_state_size] * (num_rnn_layers - 1)
        cell = self.cell_types[cell_type]
        super().__init__([cell(hidden_state_size, size) for size in input_size_list], cell_type)


class ImageCaptionModel(cocoSource_xcnnfused.ImageCaptionModel):
    """Task 1's model with `RNN` layers; config chooses `cellType` and `num_rnn_layers`."""
    simplifiedrnn = False
    layers = RNN

    def build_rnn(self, config):
        return self.layers(self.embedding_size + self.nnmapsize, self.hidden_state_sizes,
                           self.num_rnn_layers, self.cell_type)
