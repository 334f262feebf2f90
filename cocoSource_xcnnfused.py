"""Task 1: captions from a one-layer RNN, and what the later tasks build on.

Order of calls: `ImageCaptionModel.forward` maps the image to one vector and passes it on with the
words (`RecurrentLayers.forward`, `decode`). `over_words` runs the layers, `over_time` runs one cell
over all words, and `equations` is one step of a cell. Our training and decoding call what `forward`
consists of: `process_features`, `prepare` and `logits_of_words`.

Letters in the comments: B = batch, T = time steps, V = vocabulary_size, E = embedding_size,
D = number_of_cnn_features, M = nnmapsize, H = hidden_state_size, L = number of layers,
G = number of gates, the candidate included, k = vectors of size H in a cell's state (2 for LSTM,
else 1).

Captions of different lengths are packed, as in torch's `PackedSequence`: the first word of every
caption, then every second word, and so on, N words in all, the longest captions first.
`batch_sizes`, a list, says how many captions have a word at each step.
"""
import torch
import torch.nn.functional as F
from torch import nn


class RecurrentCell(nn.Module):
    """What all cells share. A cell adds its named parameters, `gates` and its `equations`.

    The product [x, h] W of the equations is a sum of two: x times the upper rows of W, and h times
    the lower rows. The words of a given caption are all known before the first step. So x's share
    is one product for all words and all gates, and only h's share is left to each step.

    Args:
        hidden_state_size: H.
        input_size: length of x.
    """
    gates = ('',)      # suffixes of the parameters' names, in the order of `equations`' sums
    state_vectors = 1  # k

    def __init__(self, hidden_state_size, input_size):
        super().__init__()
        self.hidden_state_size = hidden_state_size
        self.input_size = input_size

    def new_weight(self):
        """A weight [input_size + H, H], zero mean, variance 1/rows: x's rows, then the state's."""
        rows = self.input_size + self.hidden_state_size
        return nn.Parameter(torch.randn(rows, self.hidden_state_size) / rows ** 0.5)

    def new_bias(self, value=0.0):
        """A bias [1, H], every element `value`."""
        return nn.Parameter(torch.full((1, self.hidden_state_size), value))

    def forward(self, x, hidden_state):
        """The new state [B, k·H] from the input x [B, input_size] and the old state [B, k·H]."""
        W_x, W_h, b = self.gate_weights()
        return self.equations(x @ W_x + b, hidden_state, W_h)

    def equations(self, xW, state, W_h):
        """The cell's equations, for one time step.

        Args:
            xW: [B, G·H], the input's share of every gate's sum, bias included.
            state: the old state [B, k·H].
            W_h: the state's rows of the weights, as `gate_weights` returns them.

        Returns:
            The new state [B, k·H].
        """
        raise NotImplementedError

    def gate_weights(self, constant_input=None):
        """The concatenated parameters of all gates.

        Args:
            constant_input: [B, C] or None: the last C elements of x where they are the same at
                every step. Their share of the sums goes into the bias.

        Returns:
            W_x [input_size - C, G·H], W_h [H, G·H] and the bias b [1 or B, G·H].
        """
        W = torch.cat([getattr(self, f'weight{gate}') for gate in self.gates], dim=1)
        b = torch.cat([getattr(self, f'bias{gate}') for gate in self.gates], dim=1)
        W_x, W_h = W.split([self.input_size, self.hidden_state_size])
        if constant_input is not None:
            varying_size = self.input_size - constant_input.shape[1]
            b = b + constant_input @ W_x[varying_size:]                  # [B, G·H]
            W_x = W_x[:varying_size]
        # Mixed precision multiplies in a type of lower precision; an empty product tells which.
        # W_h is converted to it here, once, and not at every step.
        no_rows = W_h.new_zeros(0, self.hidden_state_size) @ W_h
        return W_x, W_h.to(no_rows.dtype), b

    def over_time(self, x, batch_sizes, state, weights):
        """Goes through all words of captions.

        Args:
            x: [N, input_size - C], the inputs, packed.
            batch_sizes: list, the captions that have a word at each step.
            state: [B, k·H], before the first step.
            weights: as `gate_weights` returns them.

        Returns:
            The states [N, k·H] after each word, packed; and the state after the last step, of the
            captions that have a word there.
        """
        W_x, W_h, b = weights
        sums, states, most = x @ W_x, [], batch_sizes[0]                 # [N, G·H]
        if batch_sizes[-1] == most:  # captions of one length take fewer operations
            state = state[:most]
            for xW in (sums.unflatten(0, (-1, most)) + b[:most]).unbind():
                state = self.equations(xW, state, W_h)                   # [most, k·H]
                states.append(state)
        else:
            for size, xW in zip(batch_sizes, sums.split(batch_sizes)):   # [size, G·H]
                state = self.equations(xW + b[:size], state[:size], W_h)  # [size, k·H]
                states.append(state)
        return torch.cat(states), state


class RNNsimpleCell(RecurrentCell):
    """The simple recurrent cell, h' = tanh([x, h] W + b)."""

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight = self.new_weight()
        self.bias = self.new_bias()

    def forward(self, x, state_old):  # the course's name
        return super().forward(x, state_old)

    def equations(self, xW, h, W_h):
        return torch.tanh(xW + h @ W_h)


class RecurrentLayers(nn.Module):
    """Layers of cells that caption images. Each layer is given the hidden states of the one below.

    Args:
        cells: list of `RecurrentCell`, the first layer's first.
        cell_type: their type, a str.
    """

    def __init__(self, cells, cell_type):
        super().__init__()
        self.input_size = cells[0].input_size
        self.hidden_state_size = cells[0].hidden_state_size
        self.num_rnn_layers = len(cells)
        self.cell_type = cell_type
        self.cells = nn.ModuleList(cells)

    def forward(self, tokens, processed_cnn_features, initial_hidden_state, output_layer,
                embedding_layer, is_train=True):
        """Logits and state of a caption, or of a truncated part of one.

        Args:
            tokens: [B, T] integers; free running looks at tokens[:, 0] only.
            processed_cnn_features: [B, M].
            initial_hidden_state: [L, B, k·H].
            output_layer: from [.., H] to [.., V].
            embedding_layer: from integers [..] to [.., E].
            is_train: True for teacher forcing, False for free running over 40 steps.

        Returns:
            logits [B, T, V] and the state after the last step [L, B, k·H].
        """
        constants = self.constants(processed_cnn_features)
        return self.decode(tokens, constants, initial_hidden_state, output_layer, embedding_layer,
                           is_train)

    def constants(self, processed_cnn_features):
        """What is the same at all steps: each cell's `gate_weights`, with the image's share of the
        sums in the first one's bias."""
        first, *others = self.cells
        weights = [first.gate_weights(processed_cnn_features)]
        return weights + [cell.gate_weights() for cell in others]

    def decode(self, tokens, constants, state, output_layer, embedding_layer, is_train):
        """As `forward`, from the `constants` of the images."""
        B, T = tokens.shape
        if is_train:  # all words are known: they are embedded, and all logits made, at once
            words = embedding_layer(tokens.t()).flatten(0, 1)            # [T·B, E]
            hidden, state = self.over_words(words, [B] * T, constants, state)
            hidden = hidden.unflatten(0, (T, B)).transpose(0, 1)         # [B, T, H]
            return output_layer(hidden), state
        word, logits = tokens[:, 0], []
        for _ in range(40):  # each word is the one that the step before found most likely
            hidden, state = self.over_words(embedding_layer(word), [B], constants, state)
            logits.append(output_layer(hidden))                          # [B, V]
            word = logits[-1].argmax(dim=-1)                             # [B]
        return torch.stack(logits, dim=1), state

    def over_words(self, words, batch_sizes, constants, hidden_state):
        """All layers over all words of captions.

        Args:
            words: [N, E], the embedded words, packed.
            batch_sizes: list, the captions that have a word at each step.
            constants: as the method of that name returns them.
            hidden_state: [L, B, k·H] before the first word.

        Returns:
            The last layer's hidden states [N, H] at each word, packed; and the state [L, B, k·H]
            after the last step, of the captions that have a word there.
        """
        x, updatedstate = words, []
        for cell, weights, state in zip(self.cells, constants, hidden_state):
            states, state = cell.over_time(x, batch_sizes, state, weights)  # [N, k·H], [B, k·H]
            updatedstate.append(state)
            x = states[:, :self.hidden_state_size]                       # [N, H]
        return x, torch.stack(updatedstate)


class RNNOneLayerSimplified(RecurrentLayers):
    """One layer of `RNNsimpleCell`.

    Args:
        input_size: E + M.
        hidden_state_size: H.
    """

    def __init__(self, input_size, hidden_state_size):
        super().__init__([RNNsimpleCell(hidden_state_size, input_size)], 'RNN')


class ImageCaptionModel(nn.Module):
    """From an image's features and the words so far to the next word's logits.

    Args:
        config: dict with `vocabulary_size`, `embedding_size`, `number_of_cnn_features`,
            `hidden_state_sizes`, `num_rnn_layers` (integers) and `cellType`.

    Raises:
        ValueError: the layers cannot be built.
    """
    simplifiedrnn = True
    featurepathstub = 'detectron2_lim10maxfeatures'  # what it reads

    def __init__(self, config):
        super().__init__()
        self.vocabulary_size = config['vocabulary_size']
        self.embedding_size = config['embedding_size']
        self.number_of_cnn_features = config['number_of_cnn_features']
        self.hidden_state_sizes = config['hidden_state_sizes']
        self.num_rnn_layers = config['num_rnn_layers']
        self.cell_type = config['cellType']
        self.nnmapsize = 512
        self.embedding_layer = nn.Embedding(self.vocabulary_size, self.embedding_size)
        self.output_layer = nn.Linear(self.hidden_state_sizes, self.vocabulary_size)
        self.inputLayer = self.build_input_layer()
        self.rnn = self.build_rnn(config)

    def build_input_layer(self):
        """The layer from an image's features to the vector that the first cell sees."""
        return nn.Sequential(
            nn.Dropout(0.25), nn.Linear(self.number_of_cnn_features, self.nnmapsize),
            nn.LeakyReLU())

    def build_rnn(self, config):
        """The recurrent layers, whose first input is [word embedding, processed image]."""
        if self.cell_type != 'RNN' or self.num_rnn_layers != 1:
            raise ValueError(
                "the simplified RNN has one layer of cell type 'RNN', not "
                f'{self.num_rnn_layers} of {self.cell_type!r}; the models of the other tasks have '
                'those')
        return RNNOneLayerSimplified(self.embedding_size + self.nnmapsize, self.hidden_state_sizes)

    # aliases that the handed-out code uses
    input_layer = property(lambda self: self.inputLayer)
    nn_map_size = property(lambda self: self.nnmapsize)
    simplified_rnn = property(lambda self: self.simplifiedrnn)

    def forward(self, cnn_features, x_tokens, is_train, current_hidden_state=None):
        """Logits and state of a caption, or of a truncated part of one.

        Args:
            cnn_features: [B, D] (task 4: [B, K, D]).
            x_tokens: [B, T] integers, a caption's words from the start token on.
            is_train: True for teacher forcing over x_tokens; False starts from x_tokens[:, 0] and
                feeds back the most likely word at each of 40 steps.
            current_hidden_state: [L, B, k·H] to go on from, or None for zeros.

        Returns:
            logits [B, T, V] and the state after the last step [L, B, k·H].
        """
        processed_cnn_features = self.process_features(cnn_features)
        if current_hidden_state is None:
            current_hidden_state = self.zero_state(len(cnn_features))
        return self.rnn(x_tokens, processed_cnn_features, current_hidden_state, self.output_layer,
                        self.embedding_layer, *self.further_layers(), is_train=is_train)

    def process_features(self, cnn_features):
        """The processed features [B, M] of the images' pooled features [B, D]."""
        return self.inputLayer(cnn_features)

    def further_layers(self):
        """The layers that `rnn` is given besides the output layer and the embedding layer."""
        return ()

    def zero_state(self, batch_size):
        """The state [L, B, k·H] before the first word."""
        state_size = self.rnn.cells[0].state_vectors * self.hidden_state_sizes
        return self.output_layer.weight.new_zeros(self.num_rnn_layers, batch_size, state_size)

    # `forward` in two parts, which save work: training leaves out the padding, and decoding goes
    # on with the captions that have not ended.

    def prepare(self, processed_cnn_features):
        """What all words of captions share, for `logits_of_words`."""
        return self.rnn.constants(processed_cnn_features, *self.further_layers())

    def logits_of_words(self, prepared, words, batch_sizes, state=None):
        """Logits and state of captions of different lengths.

        Args:
            prepared: what `prepare` returns for the captions' images.
            words: [N] integers, packed.
            batch_sizes: list, the captions that have a word at each step.
            state: [L, B, k·H] to go on from, or None for zeros.

        Returns:
            logits [N, V], and the state after the last step of the captions that have a word there.
        """
        if state is None:
            state = self.zero_state(batch_sizes[0])
        embedded = self.embedding_layer(words)                           # [N, E]
        hidden, state = self.rnn.over_words(embedded, batch_sizes, prepared, state)
        return self.output_layer(hidden), state


def loss_fn(logits, y_tokens, y_weights):
    """The weighted softmax cross entropy.

    Args:
        logits: [B, T, V].
        y_tokens: [B, T] integers, the right words.
        y_weights: [B, T], 1 where there is a word and 0 where there is padding.

    Returns:
        The sum over all words, and the mean over the weights, both in nats; both 0 if every weight
        is 0.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), y_tokens.flatten(), reduction='none')  # [B·T]
    sum_loss = (losses * y_weights.flatten()).sum()
    return sum_loss, sum_loss / (y_weights.sum() + 1e-7)
