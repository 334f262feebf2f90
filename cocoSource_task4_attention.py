"""Task 4: captions from an LSTM whose last layer attends to ten detections. New over task 3: the attention, the input."""
import torch
from torch import nn

import cocoSource_task3_lstm
from cocoSource_task3_lstm import LSTMCell, loss_fn  # noqa: F401 (loss_fn is offered)
from cocoSource_xcnnfused import RecurrentLayers, decode, hidden_of_words

DETECTIONS = 10
ATTENTION_SIZE = 50  # hidden units of the attention layer


def attend(states, detections, attention_layer):
    """The last layer's input: the hidden state of the layer below and the attention-weighted sum of the detections.

    Args:
        states: list of T pairs (hidden state, memory) of the layer below, each [B_t, H] for the first B_t captions.
        detections: [B, M, 10], processed features.
        attention_layer: from [.., 2H] to weights [.., 10] that sum to one.

    Returns:
        [N, H + M], N the sum of all B_t.
    """
    # cat copies, so that nothing done to the copy changes the layer below; gradients flow back through it
    weights = attention_layer(torch.cat([torch.cat(state, dim=1) for state in states]))  # [N, 10]
    attended = [(detections[:len(weight)] @ weight.unsqueeze(2)).squeeze(2)              # [B_t, M]
                for weight in weights.split([len(hidden) for hidden, _ in states])]
    return torch.cat([hidden_of_words(states), torch.cat(attended)], dim=1)              # [N, H + M]


class RNN(RecurrentLayers):
    """LSTM layers, the last of which sees the layer below and what the attention picks from the ten detections.

    Args:
        input_size: E + M.
        hidden_state_size: H, the same in all layers.
        num_rnn_layers: L, at least 2.
        last_layer_state_size: H + M, the length of the last layer's input.
        cell_type: 'LSTM'.

    Raises:
        ValueError: fewer than two layers, or another cell.
    """

    def __init__(self, input_size, hidden_state_size, num_rnn_layers, last_layer_state_size, cell_type='LSTM'):
        if cell_type != 'LSTM':
            raise ValueError(f"cell type {cell_type!r} is unknown here; known is LSTM, whose memory guides the attention")
        if num_rnn_layers < 2:
            raise ValueError(f'num_rnn_layers is {num_rnn_layers}; it must be at least 2: the attention of the last '
                             'layer is guided by the layer below')
        input_size_list = [input_size] + [hidden_state_size] * (num_rnn_layers - 2) + [last_layer_state_size]
        super().__init__([LSTMCell(hidden_state_size, size) for size in input_size_list])

    def forward(self, tokens, processed_cnn_features, initial_hidden_state, output_layer, embedding_layer,
                attention_layer, is_train=True):
        """As in the earlier tasks, with processed_cnn_features [B, M, 10] and `attention_layer` from [.., 2H] to [.., 10]."""
        return decode(self.advance_from(processed_cnn_features, attention_layer), tokens, initial_hidden_state,
                      output_layer, embedding_layer, is_train)

    def advance_from(self, processed_cnn_features, attention_layer):
        """`layers_over_words`, with the max over the detections for the first layer and the attention for the last."""
        def last_layer_input(states):
            return attend(states, processed_cnn_features, attention_layer)

        return self.layers_over_words(processed_cnn_features.max(dim=2).values, last_layer_input)


class ImageCaptionModel(cocoSource_task3_lstm.ImageCaptionModel):
    """Task 3's model over ten detections per image [B, 10, D], with an attention layer for the last layer's input."""

    def __init__(self, config):
        super().__init__(config)
        self.attention_layer = nn.Sequential(
            nn.Dropout(0.25), nn.Linear(2 * self.hidden_state_sizes, ATTENTION_SIZE), nn.LeakyReLU(),
            nn.Linear(ATTENTION_SIZE, DETECTIONS), nn.Softmax(dim=-1))

    def build_input_layer(self):
        return nn.Sequential(
            nn.Dropout(0.25), nn.Conv2d(self.number_of_cnn_features, self.nnmapsize, 1), nn.Flatten(2),
            nn.BatchNorm1d(self.nnmapsize), nn.LeakyReLU())

    def build_rnn(self, input_size):
        return RNN(input_size, self.hidden_state_sizes, self.num_rnn_layers, self.hidden_state_sizes + self.nnmapsize,
                   self.cell_type)

    def process_features(self, cnn_features):
        """The processed features [B, M, 10] of the images' detections [B, 10, D]."""
        return self.inputLayer(cnn_features.transpose(1, 2).unsqueeze(3))        # [B, D, 10, 1] to [B, M, 10]

    def layers_for_rnn(self):
        return (*super().layers_for_rnn(), self.attention_layer)
