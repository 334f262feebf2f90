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
    gates = ('_u', '_r', '')

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.hidden_state_sizes = hidden_state_size  # the hand-out's name
        self.weight_u, self.bias_u = self.new_weight(), self.new_bias()
        self.weight_r, self.bias_r = self.new_weight(), self.new_bias()
        self.weight, self.bias = self.new_weight(), self.new_bias()

    def forward(self, x, hidden_state):
        """The new state [B, H] from the input x [B, input_size] and the old state [B, H]."""
        W_x, W_h, b = self.gate_weights()
        return self.equations(x @ W_x + b, hidden_state, W_h)

    def gate_weights(self, constant_input=None):
        """As all cells', the hidden state's in two parts: h meets those of u and r, r·h those of the candidate."""
        weights = super().gate_weights(constant_input)
        return weights._replace(hidden=self._parted(weights.hidden))

    def _parted(self, columns):
        return columns.split([2 * self.hidden_state_size, self.hidden_state_size], dim=1)

    def equations(self, xW, h, W_h):
        (xW_ur, xW_c), (W_ur, W_c) = self._parted(xW), W_h
        sum_u, sum_r = (xW_ur + h @ W_ur).chunk(2, dim=1)
        u = torch.sigmoid(sum_u)                                                 # update gate
        r = torch.sigmoid(sum_r)                                                 # reset gate
        candidate = torch.tanh(xW_c + (r * h) @ W_c)
        return u * h + (1 - u) * candidate


def through_layers(cells, words, weights, hidden_state):
    """Layer after layer, each over all words, from the hidden states of the one below; the first over the words themselves.

    Args:
        cells: the layers' cells.
        words: PackedSequence of embedded words [N, E].
        weights: the layers' `GateWeights`, the image taken into the first one's.
        hidden_state: the layers' states [B, k·H] before the first word.

    Returns:
        PackedSequence of the last layer's states [N, k·H], and the list of all layers' states [B, k·H] after the last word.
    """
    x, updatedstate = words, []
    for cell, weights_of_cell, state in zip(cells, weights, hidden_state):
        states, state = cell.over_time(x, state, weights_of_cell)                # packed [N, k·H], [B, k·H]
        updatedstate.append(state)
        x = cell.hidden_of(states)                                               # packed [N, H]
    return states, updatedstate


class RNN(RecurrentLayers):
    """Any number of layers of one type of cell: each takes the hidden state of the one below, the first the word and the image.

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
        super().__init__([self.cell_types[cell_type](hidden_state_size, size) for size in input_size_list], cell_type)

    def over_words(self, words, image, hidden_state):
        states, updatedstate = through_layers(self.cells, words, image, hidden_state)
        return self.cells[-1].hidden_of(states), torch.stack(updatedstate)       # packed [N, H], [L, B, k·H]


class ImageCaptionModel(cocoSource_xcnnfused.ImageCaptionModel):
    """Task 1's model around `RNN`: `cellType` and `num_rnn_layers` of config are free."""
    rnn_class = RNN
