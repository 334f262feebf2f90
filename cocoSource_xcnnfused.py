"""Task 1: captions from a one-layer RNN, and what the later tasks build on.

Letters in the comments: B = batch, T = time steps, N = words of a batch, V = vocabulary_size, E = embedding_size,
D = number_of_cnn_features, M = nnmapsize, H = hidden_state_size, L = number of layers, G = number of gates, the candidate
included, k = vectors of size H in a cell's state (2 for LSTM, else 1).

Captions of different lengths are a `PackedSequence`: `data` [N, ..] holds the first word of every caption, then every second
word, and so on, the longest captions first, and `batch_sizes` [T] says how many captions have a word at each step.
"""
import collections

import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence

CAPTION_STEPS = 40  # words of a free-running caption; the longest human one in COCO has 50, 99.9 % have at most 25

# A cell's parameters as its steps use them, all gates side by side: input [.., G·H], hidden [H, G·H], bias [1 or B, G·H]
GateWeights = collections.namedtuple('GateWeights', 'input hidden bias')


class RecurrentCell(nn.Module):
    """What all cells share. A cell adds its named parameters, `gates`, `forward` and its `equations`.

    The product [x, h] W of the equations is a sum of two: x times the upper rows of W, and h times the lower rows. The words
    of a given caption are all known before the first step. So x's share is one product for all words and all gates, and
    only h's share is left to each step.

    Args:
        hidden_state_size: H.
        input_size: length of x.
    """
    gates = ('',)      # the endings of the parameters' names, in the order in which the gates stand side by side
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

    def equations(self, xW, state, W_h):
        """The cell's equations, for one time step.

        Args:
            xW: [B, G·H], the input's share of every gate's sum, bias included.
            state: the old state [B, k·H].
            W_h: [H, G·H], the state's rows of the gates' weights, in the form that the cell's `gate_weights` gives them.

        Returns:
            The new state [B, k·H].
        """
        raise NotImplementedError

    def gate_weights(self, constant_input=None):
        """The gates' weights side by side.

        Args:
            constant_input: [B, C] or None: the last C elements of x where they are the same at every step. Their share of
                the sums goes into the bias.
        """
        weight = torch.cat([getattr(self, f'weight{gate}') for gate in self.gates], dim=1)  # [input_size + H, G·H]
        bias = torch.cat([getattr(self, f'bias{gate}') for gate in self.gates], dim=1)      # [1, G·H]
        W_x, W_h = weight.split([self.input_size, self.hidden_state_size])
        if constant_input is not None:
            varying_size = self.input_size - constant_input.shape[1]
            bias = bias + constant_input @ W_x[varying_size:]                    # [B, G·H]
            W_x = W_x[:varying_size]
        # products may be of a shorter type here (autocast): converted once, W_h need not be so at each step
        W_h = W_h.to((W_h[:0] @ W_h[0]).dtype)
        return GateWeights(W_x, W_h, bias)

    def over_time(self, x, state, weights):
        """Takes the steps of whole captions.

        Args:
            x: PackedSequence, the inputs [N, input_size], less the part that `weights` has taken in.
            state: [B, k·H], before the first step.
            weights: `GateWeights`.

        Returns:
            PackedSequence of the states [N, k·H] after each step; and the last step's state.
        """
        sizes = x.batch_sizes.tolist()
        states = []
        for size, xW in zip(sizes, (x.data @ weights.input).split(sizes)):       # [size, G·H]
            state = self.equations(xW + weights.bias[:size], state[:size], weights.hidden)
            states.append(state)                                                 # [size, k·H]
        return PackedSequence(torch.cat(states) if len(states) > 1 else state, x.batch_sizes), state

    def hidden_of(self, states):
        """The hidden states [N, H] among packed states [N, k·H], packed."""
        return PackedSequence(states.data[:, :self.hidden_state_size], states.batch_sizes)


class RNNsimpleCell(RecurrentCell):
    """The simple recurrent cell, h' = tanh([x, h] W + b)."""

    def __init__(self, hidden_state_size, input_size):
        super().__init__(hidden_state_size, input_size)
        self.weight = self.new_weight()
        self.bias = self.new_bias()

    def forward(self, x, state_old):
        """The new state [B, H] from the input x [B, input_size] and the old state [B, H]."""
        W_x, W_h, b = self.gate_weights()
        return self.equations(x @ W_x + b, state_old, W_h)

    def equations(self, xW, h, W_h):
        return torch.tanh(xW + h @ W_h)


class RecurrentLayers(nn.Module):
    """Layers of cells that caption images. A subclass builds the cells, and defines `over_words`.

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
        image = self.prepare(processed_cnn_features)
        decode = self.teacher_forced if is_train else self.free_running
        return decode(tokens, image, initial_hidden_state, output_layer, embedding_layer)

    def teacher_forced(self, tokens, image, hidden_state, output_layer, embedding_layer):
        """Each step is given the caption's word, so that all words are embedded, and all logits made, at once."""
        B, T = tokens.shape
        words = embedding_layer(tokens.t()).flatten(0, 1)                        # [T·B, E]
        hidden, hidden_state = self.over_words(PackedSequence(words, torch.full((T,), B)), image, hidden_state)
        return output_layer(hidden.data.unflatten(0, (T, B)).transpose(0, 1)), hidden_state  # [B, T, V], [L, B, k·H]

    def free_running(self, tokens, image, hidden_state, output_layer, embedding_layer):
        """Each step is given the word that the step before found most likely."""
        word, logits = tokens[:, 0], []                                          # [B]
        for _ in range(CAPTION_STEPS):
            hidden, hidden_state = self.one_word(embedding_layer(word), image, hidden_state)
            logits.append(output_layer(hidden))                                  # [B, V]
            word = logits[-1].argmax(dim=-1)                                     # [B]
        return torch.stack(logits, dim=1), hidden_state                          # [B, 40, V], [L, B, k·H]

    def prepare(self, processed_cnn_features):
        """What is the same at all steps: the layers' `GateWeights`, the image [B, M] taken into those of the first."""
        return [cell.gate_weights(processed_cnn_features if number == 0 else None) for number, cell in enumerate(self.cells)]

    def over_words(self, words, image, hidden_state):
        """All layers over the words of whole captions.

        Args:
            words: PackedSequence of embedded words [N, E].
            image: what `prepare` returns.
            hidden_state: [L, B, k·H] before the first word.

        Returns:
            PackedSequence of the last layer's hidden states [N, H]; and the state [L, B, k·H] after the last word, of
            the captions that have a word there.
        """
        raise NotImplementedError

    def one_word(self, word, image, hidden_state):
        """All layers over one embedded word [B, E] of each caption; returns hidden states [B, H] and state [L, B, k·H]."""
        hidden, hidden_state = self.over_words(PackedSequence(word, torch.tensor([len(word)])), image, hidden_state)
        return hidden.data, hidden_state


class RNNOneLayerSimplified(RecurrentLayers):
    """One layer of `RNNsimpleCell`.

    Args:
        input_size: E + M.
        hidden_state_size: H.
    """

    def __init__(self, input_size, hidden_state_size):
        super().__init__([RNNsimpleCell(hidden_state_size, input_size)], 'RNN')

    def over_words(self, words, image, hidden_state):
        cell, = self.cells
        weights, = image
        hidden, updatedstate = cell.over_time(words, hidden_state[0], weights)   # packed [N, H], [B, H]
        return hidden, updatedstate.unsqueeze(0)                                 # [1, B, H]


class ImageCaptionModel(nn.Module):
    """From an image's features and the words so far to the next word's logits.

    Args:
        config: dict with `vocabulary_size`, `embedding_size`, `number_of_cnn_features`, `hidden_state_sizes`,
            `num_rnn_layers` (integers) and `cellType`.

    Raises:
        ValueError: the simplified RNN is asked for with another cell than 'RNN' or with more than one layer, or not asked for.
    """
    rnn_class = None  # the layers of a later task; None for the simplified ones

    def __init__(self, config):
        super().__init__()
        self.vocabulary_size = config['vocabulary_size']
        self.embedding_size = config['embedding_size']
        self.number_of_cnn_features = config['number_of_cnn_features']
        self.hidden_state_sizes = config['hidden_state_sizes']
        self.num_rnn_layers = config['num_rnn_layers']
        self.cell_type = config['cellType']
        self.nnmapsize = 512
        self.simplifiedrnn = self.rnn_class is None
        self.embedding_layer = nn.Embedding(self.vocabulary_size, self.embedding_size)
        self.output_layer = nn.Linear(self.hidden_state_sizes, self.vocabulary_size)
        self.inputLayer = self.build_input_layer()
        self.rnn = self.build_rnn(self.embedding_size + self.nnmapsize)

    def build_input_layer(self):
        """The layer from an image's features to the vector that the first cell sees."""
        return nn.Sequential(nn.Dropout(0.25), nn.Linear(self.number_of_cnn_features, self.nnmapsize), nn.LeakyReLU())

    def build_rnn(self, input_size):
        """The recurrent layers over inputs [word embedding, processed image] of length `input_size` = E + M."""
        if not self.simplifiedrnn:
            if self.rnn_class is None:
                raise ValueError('simplifiedrnn is False; cocoSource_task2_gru.py has the RNN of other cells and more layers')
            return self.rnn_class(input_size, self.hidden_state_sizes, self.num_rnn_layers, cell_type=self.cell_type)
        if self.cell_type != 'RNN' or self.num_rnn_layers != 1:
            raise ValueError(f"the simplified RNN has one layer of cell type 'RNN', not {self.num_rnn_layers} of "
                             f'{self.cell_type!r}; the models of the other tasks have those')
        return RNNOneLayerSimplified(input_size, self.hidden_state_sizes)

    # the names of the hand-out's code for what the assignment's text calls as above
    input_layer = property(lambda self: self.inputLayer)
    nn_map_size = property(lambda self: self.nnmapsize)
    simplified_rnn = property(lambda self: self.simplifiedrnn)

    def forward(self, cnn_features, x_tokens, is_train, current_hidden_state=None):
        """Logits and state of a caption, or of a truncated part of one.

        Args:
            cnn_features: [B, D] (task 4: [B, K, D]).
            x_tokens: [B, T] integers, a caption's words from the start token on.
            is_train: True for teacher forcing over x_tokens; False starts from x_tokens[:, 0] and feeds back the most
                likely word at each of 40 steps.
            current_hidden_state: [L, B, k·H] to go on from, or None for zeros.

        Returns:
            logits [B, T, V] and the state after the last step [L, B, k·H].
        """
        processed_cnn_features = self.process_features(cnn_features)
        if current_hidden_state is None:
            current_hidden_state = self.zero_state(len(cnn_features))
        return self.rnn(x_tokens, processed_cnn_features, current_hidden_state, self.output_layer, self.embedding_layer,
                        *self.further_layers(), is_train=is_train)

    def process_features(self, cnn_features):
        """The processed features [B, M] of the images' pooled features [B, D]."""
        return self.inputLayer(cnn_features)

    def further_layers(self):
        """The layers that the RNN uses besides output and embedding layer, in the order of its arguments."""
        return ()

    def zero_state(self, batch_size):
        """The state [L, B, k·H] before the first word."""
        state_size = self.rnn.cells[0].state_vectors * self.hidden_state_sizes
        return self.output_layer.weight.new_zeros(self.num_rnn_layers, batch_size, state_size)

    # What follows is `forward` in parts, for those who would save work: training leaves out padded steps, and decoding goes
    # on with the captions that have not ended.

    def logits_of_words(self, processed_cnn_features, words, current_hidden_state=None):
        """As `forward` with is_train=True, at the steps that have a word and nowhere else.

        Args:
            processed_cnn_features: as `process_features` returns them, the images of the longest captions first.
            words: PackedSequence of integers [N].
            current_hidden_state: [L, at least batch_sizes[0], k·H] to go on from, or None for zeros.

        Returns:
            logits [N, V], and the state after the last step of the captions that have a word there.
        """
        if current_hidden_state is None:
            current_hidden_state = self.zero_state(len(processed_cnn_features))
        embedded = PackedSequence(self.embedding_layer(words.data), words.batch_sizes)
        hidden, state = self.rnn.over_words(embedded, self.prepare(processed_cnn_features), current_hidden_state)
        return self.output_layer(hidden.data), state

    def prepare(self, processed_cnn_features):
        """What all steps of captions share, for `next_words`; processed_cnn_features as `process_features` returns them."""
        return self.rnn.prepare(processed_cnn_features, *self.further_layers())

    def next_words(self, image, word, state):
        """One step: the next word's logits [B, V] and the state [L, B, k·H], from what `prepare` returns, the word before
        [B], and the state before, or None for zeros."""
        if state is None:
            state = self.zero_state(len(word))
        hidden, state = self.rnn.one_word(self.embedding_layer(word), image, state)
        return self.output_layer(hidden), state


def loss_fn(logits, y_tokens, y_weights):
    """The weighted softmax cross entropy.

    Args:
        logits: [B, T, V].
        y_tokens: [B, T] integers, the right words.
        y_weights: [B, T], 1 where there is a word and 0 where there is padding.

    Returns:
        The sum over all words, and the mean over the weights, both in nats; 0 and 0 where all weights are.
    """
    losses = CrossEntropies.apply(logits.flatten(0, 1), y_tokens.flatten())      # [B·T]
    sum_loss = (losses * y_weights.flatten()).sum()
    return sum_loss, sum_loss / (y_weights.sum() + 1e-7)


class CrossEntropies(torch.autograd.Function):
    """Each word's cross entropy in nats, float32 [N], from logits [N, V] of any type and the right words [N]: F.cross_entropy of
    a few words at a time, computed again for their gradient. The results are the same, but neither a log-softmax of all words
    is kept nor a float32 copy of logits of a shorter type made, and a CPU's cache holds what it works on."""
    words_at_once = {'cpu': 64, 'cuda': 512}  # more on a GPU, where each part has to be launched

    @classmethod
    def parts(cls, logits, *others):
        """Tuples of a few rows of each; of the logits in float32."""
        rows = cls.words_at_once.get(logits.device.type, len(logits))
        return ((part.float(), *rest) for part, *rest in zip(*(each.split(rows) for each in (logits, *others))))

    @staticmethod
    def forward(ctx, logits, tokens):
        ctx.save_for_backward(logits, tokens)
        return torch.cat([F.cross_entropy(*part, reduction='none') for part in CrossEntropies.parts(logits, tokens)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient_of_losses):
        logits, tokens = ctx.saved_tensors
        gradient = torch.empty_like(logits)
        for part, target, of_losses, result in CrossEntropies.parts(logits, tokens, gradient_of_losses, gradient):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                losses = F.cross_entropy(part, target, reduction='none')
            result.copy_(torch.autograd.grad(losses, part, of_losses)[0])
        return gradient, None
