"""Task 4: captions from an LSTM whose last layer attends to an image's regions. New over task 3: the attention, the input.

Further letters: K = regions of an image, ten in the assignment; A = the attention's hidden units.
"""
import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

import cocoSource_task3_lstm
from cocoSource_task2_gru import through_layers
from cocoSource_task3_lstm import GRUCell, LSTMCell, loss_fn  # noqa: F401 (offered with this file's classes)
from cocoSource_xcnnfused import RecurrentLayers

DETECTIONS = 10      # K in the assignment
ATTENTION_SIZE = 50  # A in the assignment
CONTENT_SIZE = 512   # A of each head of `ContentAttention`


class Attention(nn.Sequential):
    """The assignment's attention layer, from states [.., 2H] to a weight for each detection [.., K]; the weights sum to one."""

    def prepare(self, detections):
        """What is the same for all words of an image: here the detections [B, M, K] as they are."""
        return detections

    def attend(self, states, detections):
        """What the attention picks from the detections, for every word.

        Args:
            states: PackedSequence of hidden state and memory [N, 2H] of the layer below at each word.
            detections: [B, M, K], processed features.

        Returns:
            The attention-weighted sums of the detections [N, M], and the weights [N, K].
        """
        # a copy, so that nothing done to it changes the layer below; gradients flow back through it
        weights = self(states.data.clone())                                      # [N, K]
        of_steps = weights.split(states.batch_sizes.tolist())                    # each [B_t, K], of the first B_t images
        sums = [(detections[:len(step)] @ step.unsqueeze(2)).squeeze(2) for step in of_steps]  # each [B_t, M]
        return torch.cat(sums), weights


class ContentAttention(nn.Module):
    """Attention that looks at what it weighs, with one or more heads (Bahdanau et al. 2015, arXiv:1409.0473, section 3.1; over
    regions of images: Anderson et al. 2018, arXiv:1707.07998, equations 3 to 5).

        e_k = v · tanh(W_s s + W_r r_k + b)   score of region k
        a   = softmax(e)                      weights
        r'  = Σ_k a_k r_k                     attended features

    Every head has a W_s, a W_r, a b and a v of its own. The heads' attended features stand side by side.

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

    def prepare(self, regions):
        """What is the same for all words of an image: its regions [B, M, K], and their share of the sums [B, K, heads, A]."""
        return regions, self.of_region(regions.transpose(1, 2)).unflatten(2, (self.heads, CONTENT_SIZE))

    def attend(self, states, image):
        """As the assignment's, with what `prepare` returns; attended features [N, heads·M], weights [N, K] as the heads' mean."""
        regions, of_regions = image
        images = torch.cat([torch.arange(number) for number in states.batch_sizes.tolist()]).to(regions.device)  # [N], the words'
        of_states = self.of_state(self.dropout(states.data)).unflatten(1, (self.heads, CONTENT_SIZE))   # [N, heads, A]
        scores = (torch.tanh(of_regions[images] + of_states.unsqueeze(1)) * self.score).sum(3)          # [N, K, heads]
        weights = scores.softmax(dim=1)
        attended = regions[images] @ weights                                     # [N, M, heads]
        return attended.transpose(1, 2).flatten(1), weights.mean(dim=2)


class RNN(RecurrentLayers):
    """LSTM layers, the last of which sees the layer below and what the attention picks from the ten detections.

    Args:
        input_size: E + M.
        hidden_state_size: H, the same in all layers.
        num_rnn_layers: L, at least 2.
        last_layer_state_size: H + M, or H + heads·M: the length of the last layer's input.
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
        super().__init__([LSTMCell(hidden_state_size, size) for size in input_size_list], cell_type)

    def forward(self, tokens, processed_cnn_features, initial_hidden_state, output_layer, embedding_layer, attention_layer,
                is_train=True):
        """As in the earlier tasks, with processed_cnn_features [B, M, K] and `attention_layer` from [.., 2H] to [.., K]."""
        image = self.prepare(processed_cnn_features, attention_layer)
        decode = self.teacher_forced if is_train else self.free_running
        return decode(tokens, image, initial_hidden_state, output_layer, embedding_layer)

    def prepare(self, processed_cnn_features, attention_layer):
        """The layers' `GateWeights`, the first one's with the max over the detections; the attention, and what it prepares."""
        if not hasattr(attention_layer, 'attend'):                               # a plain nn.Sequential does as well
            attention_layer = Attention(*attention_layer)
        weights = super().prepare(processed_cnn_features.max(dim=2).values)
        return weights, attention_layer, attention_layer.prepare(processed_cnn_features)

    def over_words(self, words, image, hidden_state):
        hidden, hidden_state, _ = self.attended_words(words, image, hidden_state)
        return hidden, hidden_state

    def attended_words(self, words, image, hidden_state):
        """What `over_words` returns, and the attention's weights [N, K] at each word."""
        weights, attention_layer, prepared = image
        states, updatedstate = through_layers(self.cells[:-1], words, weights, hidden_state)  # packed [N, 2H]
        attended, attention = attention_layer.attend(states, prepared)           # [N, M or heads·M], [N, K]
        last_cell = self.cells[-1]
        x = PackedSequence(torch.cat([last_cell.hidden_of(states).data, attended], dim=1), states.batch_sizes)  # [N, H + M]
        states, state = last_cell.over_time(x, hidden_state[-1], weights[-1])
        return last_cell.hidden_of(states), torch.stack([*updatedstate, state]), attention


class ImageCaptionModel(cocoSource_task3_lstm.ImageCaptionModel):
    """Task 3's model over K regions per image [B, K, D], with an attention layer for the last layer's input.

    Further keys of `config`, which may be missing: `attention`, 'assignment' or 'content'; `attentionHeads`, of the latter;
    `numberOfRegions`, K.
    """

    def __init__(self, config):
        self.attention = config.get('attention', 'assignment')
        self.attention_heads = config.get('attentionHeads', 1)
        super().__init__(config)
        if self.attention == 'content':
            self.attention_layer = ContentAttention(2 * self.hidden_state_sizes, self.nnmapsize, self.attention_heads)
            return
        if self.attention_heads != 1:
            raise ValueError(f"the assignment's attention has one head, not {self.attention_heads}; 'content' may have more")
        self.attention_layer = Attention(
            nn.Dropout(0.25), nn.Linear(2 * self.hidden_state_sizes, ATTENTION_SIZE), nn.LeakyReLU(),
            nn.Linear(ATTENTION_SIZE, config.get('numberOfRegions', DETECTIONS)), nn.Softmax(dim=-1))

    def build_input_layer(self):
        return nn.Sequential(
            nn.Dropout(0.25), nn.Conv2d(self.number_of_cnn_features, self.nnmapsize, 1), nn.Flatten(2),
            nn.BatchNorm1d(self.nnmapsize), nn.LeakyReLU())

    def build_rnn(self, input_size):
        last_layer_state_size = self.hidden_state_sizes + self.attention_heads * self.nnmapsize
        return RNN(input_size, self.hidden_state_sizes, self.num_rnn_layers, last_layer_state_size, self.cell_type)

    def process_features(self, cnn_features):
        """The processed features [B, M, K] of the images' regions [B, K, D]."""
        return self.inputLayer(cnn_features.transpose(1, 2).unsqueeze(3))        # [B, D, K, 1] to [B, M, K]

    def further_layers(self):
        return self.attention_layer,

    def attention_over(self, cnn_features, x_tokens):
        """The attention's weights [B, T, K] at each word of given captions; arguments as `forward`'s."""
        B, T = x_tokens.shape
        processed_cnn_features = self.process_features(cnn_features)
        words = PackedSequence(self.embedding_layer(x_tokens.t()).flatten(0, 1), torch.full((T,), B))
        *_, weights = self.rnn.attended_words(words, self.prepare(processed_cnn_features),
                                              self.zero_state(B))
        return weights.unflatten(0, (T, B)).transpose(0, 1)
