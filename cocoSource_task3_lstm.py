"""Task 3: captions from an LSTM, in any number of layers.

The order of calls is task 2's. Only the cell is new.
"""
import torch

import cocoSource_task2_gru
from cocoSource_task2_gru import GRUCell, RNNsimpleCell, loss_fn  # noqa: F401 (offered here too)
from cocoSource_xcnnfused import RecurrentCell


class LSTMCell(RecurrentCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000).

        f  = σ([x, h] W_f + b_f)            forget gate
        i  = σ([x, h] W_i + b_i)            input gate
        o  = σ([x, h] W_o + b_o)            output gate
        c' = f·c + i·tanh([x, h] W + b)     memory
        h' = o·tanh(c')

    A state is [hidden h, memory c], [B, 2H]. All biases start at two, as the exercise's notes say.
    """
    gates = ('_f', '_i', '_o', '')
    state_vectors = 2

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight_f, self.bias_f = self.new_weight(), self.new_bias(2.0)
        self.weight_i, self.bias_i = self.new_weight(), self.new_bias(2.0)
        self.weight_o, self.bias_o = self.new_weight(), self.new_bias(2.0)
        self.weight, self.bias = self.new_weight(), self.new_bias(2.0)

    def equations(self, xW, state, W_h):
        h, c = state.chunk(2, dim=1)
        sum_f, sum_i, sum_o, sum_c = (xW + h @ W_h).chunk(4, dim=1)
        f = torch.sigmoid(sum_f)                                         # forget gate
        i = torch.sigmoid(sum_i)                                         # input gate
        o = torch.sigmoid(sum_o)                                         # output gate
        c = f * c + i * torch.tanh(sum_c)                                # memory
        h = o * torch.tanh(c)                                            # hidden state
        return torch.cat([h, c], dim=1)


class RNN(cocoSource_task2_gru.RNN):
    """Task 2's layers, with the LSTM as a further cell type."""
    cell_types = {**cocoSource_task2_gru.RNN.cell_types, 'LSTM': LSTMCell}


class ImageCaptionModel(cocoSource_task2_gru.ImageCaptionModel):
    """Task 2's model around this task's `RNN`."""
    layers = RNN
