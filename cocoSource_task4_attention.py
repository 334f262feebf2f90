"""Task 4: captions from an LSTM whose last layer attends to an image's regions.

The order of calls is task 3's, with one addition: before the last layer, the attention layer
weights the regions by the state of the layer below (`RNN.attended_words`).

Further letters: K = regions of an image, ten in the assignment; A = the attention's hidden units.
"""
import torch
from torch import nn

import cocoSource_task3_lstm
from cocoSource_task3_lstm import GRUCell, LSTMCell, loss_fn  # noqa: F401 (offered here too)
from cocoSource_xcnnfused import RecurrentLayers

DETECTIONS = 10      # K in the assignment
ATTENTION_SIZE = 50  # A in the assignment
CONTENT_SIZE = 512   # A of each head of `ContentAttention`


class Attention(nn.Sequential):
    """The assignment's attention layer, from states [.., 2H] to the regions' weights [.., K]."""

    def project(self, regions):
        """The regions' share of the scores: none."""
        return None

    def attend(self, states, batch_sizes, regions, projected):
        """The attended features at every word.

        Args:
            states: [N, 2H], hidden state and memory of the layer below at each word, packed.
            batch_sizes: list, the captions that have a word at each step.
            regions: [B, M, K], processed features.
            projected: what `project` returns for them.

        Returns:
            The weighted sums of the regions [N, M], and the weights [N, K].
        """
        # a copy, so that nothing done to it changes the layer below; gradients flow through it
        weights = self(states.clone())                                   # [N, K]
        sums = [(regions[:len(step)] @ step.unsqueeze(2)).squeeze(2)     # [B_t, M], images of step
                for step in weights.split(batch_sizes)]
        return torch.cat(sums), weights


class ContentAttention(nn.Module):
    """Attention that looks at what it weighs, with one or more heads (Bahdanau et al. 2015,
    arXiv:1409.0473, section 3.1; over regions of images: Anderson et al. 2018, arXiv:1707.07998,
    equations 3 to 5).

        e_k = v · tanh(W_s s + W_r r_k + b)   score of region k
        a   = softmax(e)                      weights
        r'  = Σ_k a_k r_k                     attended features

    Every head has its own W_s, W_r, b and v. The heads' attended features are concatenated.

    Args:
        state_size: length of the state s.
        region_size: M, length of a region's processed features r_k.
        heads: their number.
    """

    def __init__(self, state_size, region_size, heads):
        super().__init__()
        self.heads = heads
        self.dropout = nn.Dropout(0.25)
        self.of_state = nn.Linear(state_size, heads * CONTENT_SIZE)
        self.of_region = nn.Linear(region_size, heads * CONTENT_SIZE, bias=False)
        self.score = nn.Parameter(torch.randn(heads, CONTENT_SIZE) / CONTENT_SIZE ** 0.5)

    def project(self, regions):
        """The regions' share W_r r_k [B, K, heads, A] of the scores, from regions [B, M, K]."""
        return self.of_region(regions.transpose(1, 2)).unflatten(2, (self.heads, CONTENT_SIZE))

    def attend(self, states, batch_sizes, regions, projected):
        """As `Attention.attend`: attended features [N, heads·M], the heads' mean weights [N, K]."""
        def at_words(of_images):  # slices, as an index adds gradients in no fixed order
            return torch.cat([of_images[:size] for size in batch_sizes])  # [N, ..]

        of_states = self.of_state(self.dropout(states))                  # [N, heads·A]
        of_states = of_states.unflatten(1, (1, self.heads, CONTENT_SIZE))  # [N, 1, heads, A]
        hidden = torch.tanh(at_words(projected) + of_states)             # [N, K, heads, A]
        weights = (hidden * self.score).sum(3).softmax(dim=1)            # [N, K, heads]
        attended = at_words(regions) @ weights                           # [N, M, heads]
        return attended.transpose(1, 2).flatten(1), weights.mean(dim=2)


class RNN(RecurrentLayers):
    """LSTM layers, the last of which is given the layer below and the attended features.

    Args:
        input_size: E + M.
        hidden_state_size: H, the same in all layers.
        num_rnn_layers: L, at least 2.
        last_layer_state_size: H + M, or H + heads·M: the length of the last layer's input.
        cell_type: 'LSTM'.

    Raises:
        ValueError: fewer than two layers, or another cell.
    """

    def __init__(self, input_size, hidden_state_size, num_rnn_layers, last_layer_state_size,
                 cell_type='LSTM'):
        if cell_type != 'LSTM':
            raise ValueError(f'cell type {cell_type!r} is unknown here; known is LSTM, whose '
                             'memory guides the attention')
        if num_rnn_layers < 2:
            raise ValueError(f'num_rnn_layers is {num_rnn_layers}; it must be at least 2: the '
                             'attention of the last layer is guided by the layer below')
        middle = [hidden_state_size] * (num_rnn_layers - 2)
        input_size_list = [input_size] + middle + [last_layer_state_size]
        cells = [LSTMCell(hidden_state_size, size) for size in input_size_list]
        super().__init__(cells, cell_type)

    def forward(self, tokens, processed_cnn_features, initial_hidden_state, output_layer,
                embedding_layer, attention_layer, is_train=True):
        """As in the earlier tasks, with processed_cnn_features [B, M, K], and `attention_layer`
        from [.., 2H] to [.., K]."""
        constants = self.constants(processed_cnn_features, attention_layer)
        return self.decode(tokens, constants, initial_hidden_state, output_layer, embedding_layer,
                           is_train)

    def constants(self, processed_cnn_features, attention_layer):
        """What is the same at all steps: the cells' weights, with the max over the regions as the
        first one's image; the attention layer, the regions, and what it makes of them."""
        weights = super().constants(processed_cnn_features.max(dim=2).values)
        if not hasattr(attention_layer, 'attend'):  # any other module
            attention_layer = Attention(attention_layer)
        projected = attention_layer.project(processed_cnn_features)
        return weights, attention_layer, processed_cnn_features, projected

    def over_words(self, words, batch_sizes, constants, hidden_state):
        hidden, state, _ = self.attended_words(words, batch_sizes, constants, hidden_state)
        return hidden, state

    def attended_words(self, words, batch_sizes, constants, hidden_state):
        """What `over_words` returns, and the attention's weights [N, K] at each word, packed."""
        weights, attention_layer, regions, projected = constants
        x, states, updatedstate = words, None, []
        for number, cell in enumerate(self.cells):
            if number == self.num_rnn_layers - 1:                        # the last layer
                attended, attention = attention_layer.attend(
                    states, batch_sizes, regions, projected)             # [N, M], [N, K]
                x = torch.cat([x, attended], dim=1)                      # [N, H + M]
            states, state = cell.over_time(x, batch_sizes, hidden_state[number], weights[number])
            updatedstate.append(state)                                   # [B, 2H]
            x = states[:, :self.hidden_state_size]                       # [N, H]
        return x, torch.stack(updatedstate), attention


class ImageCaptionModel(cocoSource_task3_lstm.ImageCaptionModel):
    """Task 3's model over K regions per image [B, K, D], with an attention layer for the last
    layer's input.

    Optional keys of `config`: `attention`, 'assignment' or 'content'; `attentionHeads`, for
    'content' only; `numberOfRegions`, K.
    """
    featurepathstub = 'detectron2_lim10features'

    def __init__(self, config):
        super().__init__(config)
        heads = config.get('attentionHeads', 1)
        state_size = 2 * self.hidden_state_sizes
        if config.get('attention', 'assignment') == 'content':
            self.attention_layer = ContentAttention(state_size, self.nnmapsize, heads)
        elif heads == 1:
            self.attention_layer = Attention(
                nn.Dropout(0.25), nn.Linear(state_size, ATTENTION_SIZE), nn.LeakyReLU(),
                nn.Linear(ATTENTION_SIZE, config.get('numberOfRegions', DETECTIONS)),
                nn.Softmax(dim=-1))
        else:
            raise ValueError(f"the assignment's attention has one head, not {heads}; 'content' may "
                             'have more')

    def build_input_layer(self):
        return nn.Sequential(
            nn.Dropout(0.25), nn.Conv2d(self.number_of_cnn_features, self.nnmapsize, 1),
            nn.Flatten(2), nn.BatchNorm1d(self.nnmapsize), nn.LeakyReLU())

    def build_rnn(self, config):
        heads = config.get('attentionHeads', 1)
        last_layer_state_size = self.hidden_state_sizes + heads * self.nnmapsize
        return RNN(self.embedding_size + self.nnmapsize, self.hidden_state_sizes,
                   self.num_rnn_layers, last_layer_state_size, self.cell_type)

    def process_features(self, cnn_features):
        """The processed features [B, M, K] of the images' regions [B, K, D]."""
        return self.inputLayer(cnn_features.transpose(1, 2).unsqueeze(3))  # from [B, D, K, 1]

    def further_layers(self):
        return (self.attention_layer,)

    def attention_over(self, cnn_features, x_tokens):
        """The attention's weights [B, T, K] at each word of given captions."""
        B, T = x_tokens.shape
        words = self.embedding_layer(x_tokens.t()).flatten(0, 1)         # [T·B, E]
        prepared = self.prepare(self.process_features(cnn_features))
        *_, weights = self.rnn.attended_words(words, [B] * T, prepared, self.zero_state(B))
        return weights.unflatten(0, (T, B)).transpose(0, 1)
