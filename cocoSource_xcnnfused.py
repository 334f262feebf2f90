"""Task 1: captions from a one-layer RNN, and all that the later tasks share.

Letters in the comments: B = batch, T = time steps, V = vocabulary_size, E = embedding_size, D = number_of_cnn_features,
M = nnmapsize, H = hidden_state_size, L = number of layers, k = vectors of size H in a cell's state (2 for LSTM, else 1).
"""
import math

import torch
import torch.nn.functional as F
from torch import nn

END = 0             # the token that ends a caption
CAPTION_STEPS = 40  # words of a free-running caption; the longest human one in COCO has 50, 99.9 % have at most 25


class RecurrentCell(nn.Module):
    """What every cell shares. A cell defines its named parameters, `stacked_parameters` and `step`, its equations.

    The products of the equations, [x, h] W + b, are sums of two: x times the upper rows of W plus h times the lower rows.
    All words of a given caption are known at once, so x's part is one product for the whole caption and all gates
    (`unrolled`), and only h's part is left to each step.

    Args:
        hidden_state_size: H.
        input_size: length of x.
    """
    state_vectors = 1  # k

    def __init__(self, hidden_state_size, input_size):
        super().__init__()
        self.hidden_state_size = hidden_state_size
        self.input_size = input_size

    def new_weight(self):
        """A weight [input_size + H, H] of zero mean and variance 1/n, n its rows: x's rows first, then the state's."""
        n = self.input_size + self.hidden_state_size
        return nn.Parameter(torch.randn(n, self.hidden_state_size) / n ** 0.5)

    def new_bias(self, value=0.0):
        """A bias [1, H], every element `value`."""
        return nn.Parameter(torch.full((1, self.hidden_state_size), value))

    def stacked_parameters(self):
        """The weights and the biases of all G gates side by side: [input_size + H, G·H] and [1, G·H]."""
        raise NotImplementedError

    def step(self, xW, state, W_h):
        """The cell's equations for one time step.

        Args:
            xW: [B, G·H], the input's share of every gate's sum, bias included.
            state: the old state's k vectors, each [B, H].
            W_h: [H, G·H], the state's rows of the stacked weight.

        Returns:
            The new state's k vectors, each [B, H], the hidden state first.
        """
        raise NotImplementedError

    def unrolled(self, constant_input=None):
        """This cell as a function over time, with everything that stays the same from step to step computed once.

        Args:
            constant_input: [B, C] or None, the last C elements of x where these are the same at every step.

        Returns:
            `run(x, state, sizes)`, which takes the inputs x [N, input_size - C] of all N words, one step's after the
            other's, the state [B, k·H] before them, and how many captions have a word at each step (N in sum; never
            growing: the longest captions come first). It returns the states after each step, a list of tuples as `step`
            returns them, each for the captions that have a word there.
        """
        weight, bias = self.stacked_parameters()                                 # [input_size + H, G·H], [1, G·H]
        W_x, W_h = weight.split([self.input_size, self.hidden_state_size])
        if constant_input is not None:
            varying_size = self.input_size - constant_input.shape[1]
            bias = bias + constant_input @ W_x[varying_size:]                    # [B, G·H]
            W_x = W_x[:varying_size]

        def run(x, state, sizes):
            state = state.chunk(self.state_vectors, dim=1)
            states = []
            for size, xW in zip(sizes, (x @ W_x).split(sizes)):                  # [size, G·H]
                state = self.step(xW + bias[:size], tuple(vector[:size] for vector in state), W_h)
                states.append(state)
            return states

        return run

    def next_state(self, x, state):
        """One step from x [B, input_size] and the state [B, k·H] to the new state [B, k·H]."""
        new_state, = self.unrolled()(x, state, [len(x)])
        return torch.cat(new_state, dim=1)


class RNNsimpleCell(RecurrentCell):
    """The simple recurrent cell, h' = tanh([x, h] W + b)."""

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight = self.new_weight()
        self.bias = self.new_bias()

    def forward(self, x, state_old):
        """The new state [B, H] from the input x [B, input_size] and the old state [B, H]."""
        return self.next_state(x, state_old)

    def stacked_parameters(self):
        return self.weight, self.bias

    def step(self, xW, state, W_h):
        h, = state
        return torch.tanh(xW + h @ W_h),


def decode(advance, tokens, hidden_state, output_layer, embedding_layer, is_train):
    """Teacher forcing over the given words, or free running from the first of them; both take their steps by `advance`.

    Args:
        advance: as `RecurrentLayers.layers_over_words` returns it.
        tokens: [B, T] integers.
        hidden_state: [L, B, k·H].
        is_train: True for teacher forcing, False for free running, which needs only tokens[:, 0].

    Returns:
        logits [B, T, V] (T = 40 when running free) and the last state [L, B, k·H].
    """
    B, T = tokens.shape
    if is_train:
        x = embedding_layer(tokens.t()).flatten(0, 1)                            # [T·B, E], step after step
        hidden, hidden_state = advance(x, hidden_state, [B] * T)                 # [T·B, H], [L, B, k·H]
        return output_layer(hidden.unflatten(0, (T, B)).transpose(0, 1)), hidden_state
    logits = []
    word = tokens[:, 0]                                                          # [B]
    for _ in range(CAPTION_STEPS):
        hidden, hidden_state = advance(embedding_layer(word), hidden_state, [B])  # [B, H], [L, B, k·H]
        logits.append(output_layer(hidden))                                      # [B, V]
        word = logits[-1].argmax(dim=-1)                                         # [B]
    return torch.stack(logits, dim=1), hidden_state


def hidden_of_words(states):
    """The hidden states [N, H] of all words, step after step, from the list of states that an unrolled cell returns."""
    return torch.cat([state[0] for state in states])


class RecurrentLayers(nn.Module):
    """Cells one above the other: each takes the hidden state of the one below; the image enters the first.

    Args:
        cells: list of `RecurrentCell`, the first layer's cell first.
    """

    def __init__(self, cells):
        super().__init__()
        self.cells = nn.ModuleList(cells)

    def forward(self, tokens, processed_cnn_features, initial_hidden_state, output_layer, embedding_layer, is_train=True):
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
        return decode(self.advance_from(processed_cnn_features), tokens, initial_hidden_state, output_layer,
                      embedding_layer, is_train)

    def advance_from(self, processed_cnn_features):
        """`layers_over_words` for the image's processed features, as `forward` takes them."""
        return self.layers_over_words(processed_cnn_features)

    def layers_over_words(self, image, last_layer_input=hidden_of_words):
        """The function that takes all layers over words: layer by layer, each over the whole of the words it is given.

        Args:
            image: [B, M], the image's share of the first layer's input.
            last_layer_input: what the last layer of several sees, [N, ..], from the list of states of the one below.

        Returns:
            `advance(x, hidden_state, sizes)`, which takes embedded words x [N, E], the layers' state [L, B, k·H] and
            `sizes` as in `RecurrentCell.unrolled`; returns the last layer's hidden states [N, H] and the state after the
            last step [L, sizes[-1], k·H].
        """
        layers = [cell.unrolled(image if number == 0 else None) for number, cell in enumerate(self.cells)]

        def advance(x, hidden_state, sizes):
            states, last_states = None, []
            for number, (layer, state) in enumerate(zip(layers, hidden_state)):
                if number > 0:
                    x = (last_layer_input if number == len(layers) - 1 else hidden_of_words)(states)
                states = layer(x, state, sizes)
                last_states.append(torch.cat(states[-1], dim=1))                 # [sizes[-1], k·H]
            return hidden_of_words(states), torch.stack(last_states)             # [N, H], [L, sizes[-1], k·H]

        return advance


class RNNOneLayerSimplified(RecurrentLayers):
    """One layer of `RNNsimpleCell`.

    Args:
        input_size: E + M.
        hidden_state_size: H.
    """

    def __init__(self, input_size, hidden_state_size):
        super().__init__([RNNsimpleCell(hidden_state_size, input_size)])


class ImageCaptionModel(nn.Module):
    """From an image's features and the words so far to the next word's logits.

    Args:
        config: dict with `vocabulary_size`, `embedding_size`, `number_of_cnn_features`, `hidden_state_sizes`,
            `num_rnn_layers` (integers) and `cellType`.

    Raises:
        ValueError: the simplified RNN is asked for with another cell than 'RNN' or with more than one layer.
    """
    simplifiedrnn = True

    def __init__(self, config):
        super().__init__()
        self.vocabulary_size = config['vocabulary_size']
        self.embedding_size = config['embedding_size']
        self.number_of_cnn_features = config['number_of_cnn_features']
        self.hidden_state_sizes = config['hidden_state_sizes']
        self.num_rnn_layers = config['num_rnn_layers']
        self.cell_type = config['cellType']
        self.nnmapsize = 512
        if self.simplifiedrnn and (self.cell_type != 'RNN' or self.num_rnn_layers != 1):
            raise ValueError(f"the simplified RNN has one layer of cell type 'RNN', not {self.num_rnn_layers} of "
                             f'{self.cell_type!r}; the models of the other tasks have those')
        self.embedding_layer = nn.Embedding(self.vocabulary_size, self.embedding_size)
        self.output_layer = nn.Linear(self.hidden_state_sizes, self.vocabulary_size)
        self.inputLayer = self.build_input_layer()
        self.rnn = self.build_rnn(self.embedding_size + self.nnmapsize)

    def build_input_layer(self):
        """The layer from an image's features to the vector that the first cell sees."""
        return nn.Sequential(nn.Dropout(0.25), nn.Linear(self.number_of_cnn_features, self.nnmapsize), nn.LeakyReLU())

    def build_rnn(self, input_size):
        """The recurrent layers over inputs [word embedding, processed image] of length `input_size` = E + M."""
        return RNNOneLayerSimplified(input_size, self.hidden_state_sizes)

    def process_features(self, cnn_features):
        """The processed features [B, M] of the images' pooled features [B, D]."""
        return self.inputLayer(cnn_features)

    def layers_for_rnn(self):
        """The layers that the model owns and its RNN only uses, in the order of the RNN's arguments."""
        return self.output_layer, self.embedding_layer

    def forward(self, cnn_features, x_tokens, is_train, current_hidden_state=None):
        """Logits and state of a caption, or of a truncated part of one.

        Args:
            cnn_features: [B, D] (task 4: [B, 10, D]).
            x_tokens: [B, T] integers, a caption's words from the start token on.
            is_train: True for teacher forcing over x_tokens; False starts from x_tokens[:, 0] and feeds back the most
                likely word at each of 40 steps.
            current_hidden_state: [L, B, k·H] to go on from, or None for zeros.

        Returns:
            logits [B, T, V] and the state after the last step [L, B, k·H].
        """
        processed_cnn_features = self.process_features(cnn_features)
        if current_hidden_state is None:
            current_hidden_state = self.zero_state(processed_cnn_features)
        return self.rnn(x_tokens, processed_cnn_features, current_hidden_state, *self.layers_for_rnn(),
                        is_train=is_train)

    def zero_state(self, processed_cnn_features):
        """The state [L, B, k·H] before the first word."""
        state_size = self.rnn.cells[0].state_vectors * self.hidden_state_sizes
        return processed_cnn_features.new_zeros(self.num_rnn_layers, len(processed_cnn_features), state_size)

    def advance_from(self, processed_cnn_features):
        """The RNN's function of that name, for processed features."""
        _, _, *further_layers = self.layers_for_rnn()
        return self.rnn.advance_from(processed_cnn_features, *further_layers)

    def logits_of_words(self, cnn_features, words, sizes, current_hidden_state=None):
        """As `forward` with is_train=True, at the steps that have a word and nowhere else.

        Args:
            cnn_features: as in `forward`, the images of the longest captions first.
            words: [N] integers, the captions' words to start from: the first of each, the second of each and so on.
            sizes: list of T integers, how many captions have a word at each step.
            current_hidden_state: [L, at least sizes[0], k·H] to go on from, or None for zeros.

        Returns:
            logits [N, V], and the state after the last step of the captions that have a word there [L, sizes[-1], k·H].
        """
        processed_cnn_features = self.process_features(cnn_features)
        if current_hidden_state is None:
            current_hidden_state = self.zero_state(processed_cnn_features)
        advance = self.advance_from(processed_cnn_features)
        hidden, state = advance(self.embedding_layer(words), current_hidden_state, sizes)
        return self.output_layer(hidden), state

    def greedy_tokens(self, cnn_features, start_tokens):
        """The words that `forward` with is_train=False finds most likely, up to each caption's end token.

        Args:
            cnn_features: as in `forward`.
            start_tokens: [B] integers.

        Returns:
            [B, at most 40] integers, end tokens from each caption's end on.
        """
        image = self.process_features(cnn_features)
        state, word, advance = self.zero_state(image), start_tokens, self.advance_from(image)
        tokens = start_tokens.new_full((len(start_tokens), CAPTION_STEPS), END)
        rows = torch.arange(len(start_tokens), device=start_tokens.device)       # the captions that are computed …
        going = torch.ones_like(rows, dtype=torch.bool)                          # … and have not ended
        for step in range(CAPTION_STEPS):
            hidden, state = advance(self.embedding_layer(word), state, [len(rows)])
            word = self.output_layer(hidden).argmax(dim=-1)
            tokens[rows, step] = word.masked_fill(~going, END)
            going = going & (word != END)
            left = int(going.sum())
            if left == 0:
                break
            if left <= len(rows) // 2:                                           # go on with those alone
                rows, word, state, going = rows[going], word[going], state[:, going], going[going]
                advance = self.advance_from(image[rows])
        return tokens[:, :step + 1]

    def beam_tokens(self, cnn_features, start_tokens, beam_size):
        """The words found by beam search: step after step every image keeps its K best captions, ended or not.

        The best have the highest log-probability per word, the end counted as one (Cho et al. 2014, arXiv:1409.1259): the
        sum alone favours short captions, the more so the wider the beam.

        Args:
            cnn_features: as in `forward`.
            start_tokens: [B] integers.
            beam_size: K; 1 gives `greedy_tokens`. More than 1 never gives an empty caption.

        Returns:
            [B, at most 40] integers, end tokens from each caption's end on.

        Raises:
            ValueError: K is less than 1.
        """
        if beam_size < 1:
            raise ValueError(f'beam_size is {beam_size}; it must be at least 1')
        if beam_size == 1:
            return self.greedy_tokens(cnn_features, start_tokens)
        B, K, image = len(start_tokens), beam_size, self.process_features(cnn_features)
        heirs = min(K, self.vocabulary_size)                                     # no caption has more of them among the K
        captions = start_tokens.new_full((B, CAPTION_STEPS), END)
        rows = torch.arange(B, device=start_tokens.device)                       # the b images that are computed
        tokens = start_tokens.new_full((B, K, CAPTION_STEPS), END)
        log_p = image.new_full((B, K), -math.inf)                                # of each caption; the K empty ones …
        log_p[:, 0] = 0                                                          # … are the same and count once
        ended = torch.zeros_like(log_p, dtype=torch.bool)
        after_end = image.new_full((heirs,), -math.inf)                          # an end goes on with another, at no cost
        after_end[0] = 0
        word, state = start_tokens.repeat_interleave(K), self.zero_state(image).repeat_interleave(K, dim=1)
        advance = self.advance_from(image.repeat_interleave(K, dim=0))
        for step in range(CAPTION_STEPS):
            hidden, state = advance(self.embedding_layer(word), state, [len(word)])
            log_p_of_words = self.output_layer(hidden).log_softmax(dim=-1)       # [b·K, V]
            if step == 0:
                log_p_of_words[:, END] = -math.inf
            gains, words = (best.view(-1, K, heirs) for best in log_p_of_words.topk(heirs))
            log_p = log_p.unsqueeze(2) + torch.where(ended.unsqueeze(2), after_end, gains)  # [b, K, heirs]
            words = words.masked_fill(ended.unsqueeze(2), END)
            lengths = (tokens != END).sum(dim=2) + 1                             # [b, K], with the next word or the end
            chosen = (log_p / lengths.unsqueeze(2)).flatten(1).topk(K).indices   # [b, K], the best first
            parents = torch.div(chosen, heirs, rounding_mode='floor')            # [b, K]
            log_p, word = (each.flatten(1).gather(1, chosen) for each in (log_p, words))
            tokens = tokens.gather(1, parents.unsqueeze(2).expand_as(tokens))
            tokens[:, :, step] = word
            ended = word == END
            captions[rows] = tokens[:, 0]
            going = ~ended.all(dim=1)                                            # [b]
            left = int(going.sum())
            if left == 0:
                break
            state_rows = parents + K * torch.arange(len(rows), device=rows.device).unsqueeze(1)  # [b, K] of b·K
            if left <= len(rows) // 2:                                           # go on with those alone
                rows, tokens, log_p, ended, word, state_rows = (
                    each[going] for each in (rows, tokens, log_p, ended, word, state_rows))
                advance = self.advance_from(image[rows].repeat_interleave(K, dim=0))
            word, state = word.flatten(), state[:, state_rows.flatten()]
        return captions[:, :step + 1]


def loss_fn(logits, y_tokens, y_weights):
    """The weighted softmax cross entropy.

    Args:
        logits: [B, T, V].
        y_tokens: [B, T] integers, the right words.
        y_weights: [B, T], 1 where there is a word and 0 where there is padding.

    Returns:
        The sum over all words, and the mean over the weights, both in nats.
    """
    losses = F.cross_entropy(logits.flatten(0, 1), y_tokens.flatten(), reduction='none')  # [B·T]
    sum_loss = (losses * y_weights.flatten()).sum()
    return sum_loss, sum_loss / y_weights.sum()
