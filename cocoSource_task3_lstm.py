"""Task 3: captions from an LSTM of any number of layers. New over task 2: the cell."""
import torch

import cocoSource_task2_gru
from cocoSource_task2_gru import GRUCell, RNNsimpleCell, loss_fn  # noqa: F401 (offered with this file's classes)
from cocoSource_xcnnfused import RecurrentCell


class LSTMCell(RecurrentCell):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al. 2000).

        f  = σ([x, h] W_f + b_f)            forget gate
        i  = σ([x, h] W_i + b_i)            input gate
        o  = σ([x, h] W_o + b_o)            output gate
        c' = f·c + i·tanh([x, h] W + b)     memory
        h' = o·tanh(c')

    A state is [hidden h, memory c], [B, 2H]. All biases start at two, as the exercise's notes have it.
    """
    state_vectors = 2

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight_f, self.bias_f = self.new_weight(), self.new_bias(2.0)
        self.weight_i, self.bias_i = self.new_weight(), self.new_bias(2.0)
        self.weight_o, self.bias_o = self.new_weight(), self.new_bias(2.0)
        self.weight, self.bias = self.new_weight(), self.new_bias(2.0)

    def forward(self, x, hidden_state):
        """The new state [B, 2H] from the input x [B, input_size] and the old state [B, 2H], both [hidden, memory]."""
        return self.next_state(x, hidden_state)

    def stacked_parameters(self):
        return (torch.cat([self.weight_f, self.weight_i, self.weight_o, self.weight], dim=1),
                torch.cat([self.bias_f, self.bias_i, self.bias_o, self.bias], dim=1))

    def step(self, xW, state, W_h):
        h, c = state
        gates, candidate = (xW + h @ W_h).split([3 * self.hidden_state_size, self.hidden_state_size], dim=1)
        f, i, o = torch.sigmoid(gates).chunk(3, dim=1)
        c = f * c + i * torch.tanh(candidate)
        return o * torch.tanh(c), c


class RNN(cocoSource_task2_gru.RNN):
    """Task 2's layers, with LSTM cells to choose as well."""
    cell_types = {**cocoSource_task2_gru.RNN.cell_types, 'LSTM': LSTMCell}


class ImageCaptionModel(cocoSource_task2_gru.ImageCaptionModel):
    """Task 2's model around this task's `RNN`."""

    def build_rnn(self, input_size):
        return RNN(input_size, self.hidden_state_sizes, self.num_rnn_layers, self.cell_type)
