"""Steps on a GPU as CUDA graphs.

A training step of these networks is hundreds or thousands of small kernels, a step of captioning
dozens. Launching them one by one takes the CPU longer than computing them takes the GPU. A CUDA
graph launches all of them at once, as they were recorded
(https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

In training, forward and backward passes are recorded, once for each length of a batch's longest
caption, to which the others are padded. The optimizer stays outside. An epoch's last batch, which
is smaller, is learned without a graph. In decoding, the steps between two checks whether all
captions have ended are recorded together.
"""
import functools

import torch
import torch.nn.functional as F

from utils.networks.decoding import untilAllHaveEnded
from utils.networks.otherNetworks import isWordwise
from utils.networks.precision import FLOAT32
from utils.processes.distributed import worldSize

ROUNDING, ROUNDING_IN_MIXED_PRECISION = 1e-3, .05  # of gradients, relative to their norm


@untilAllHaveEnded
def replayed(graphs):
    """Replays graphs of `StepGraphs` until all captions have ended; returns the last result."""
    for graph, going, result in graphs:
        graph.replay()
        yield going, result


class StepGraphs:
    """The graphs of a `Model`'s steps, either of training or of captions.

    Each is compared with the same step without one. Where results differ by more than rounding, or
    recording fails, the run goes on without graphs, and a sentence says so.
    """

    def __init__(self, model):
        self.model = model
        self.possible = (model.device.type == 'cuda' and model.modelParam.get('cudaGraphs', True)
                         and isWordwise(model.net) and worldSize() == 1
                         and torch.__version__ >= (2, 1))  # before that new seeds are ignored
        self.inputs = {}  # by place and shape: the tensors that the kernels read
        self.graphs = {}  # by what they compute: graphs, each with what it yields
        self.pool = None  # the graphs' memory

    def loss(self, batch, words):
        """The loss of a batch, summed over its words; the gradients of the loss per word are left
        in the network. None where the batch is to be learned without a graph."""
        model = self.model
        if not self._fits(batch):
            return None
        *words_of_parts, _ = map(torch.stack, zip(*model.wordsOfParts(batch, slice(None))))
        N, T, B = words_of_parts[0].shape                                # N truncated parts
        longest = model.config['truncated_backprop_length']
        padded = (F.pad(part, (0, 0, 0, longest - T)) for part in words_of_parts)
        # first the longest, whose memory is enough for all
        keys = [(model.net.training, B, N, steps) for steps in (longest, T)]
        return self._result(self._pass, keys, batch['cnn_features'], torch.tensor(words), *padded)

    def tokens(self, decoder, batch, *options):
        """The tokens that a function of `utils.networks.decoding` returns for a batch. None where
        it is to be called without a graph."""
        if not self._fits(batch):
            return None
        keys = [(self.model.net.training, decoder, options)]
        return self._result(self._captions, keys, batch['cnn_features'], batch['xTokens'][:, 0, 0])

    def _fits(self, batch):
        return self.possible and len(batch['cnn_features']) == self.model.modelParam['batch_size']

    def _result(self, function, keys, *tensors):
        """The last result of the generator that `function` makes of the last key and the tensors.
        None if it cannot be recorded."""
        inputs = []
        for place, tensor in enumerate(tensors):
            key = place, tensor.shape
            if key not in self.inputs:
                self.inputs[key] = torch.empty_like(tensor, device=self.model.device)
            inputs.append(self.inputs[key].copy_(tensor, non_blocking=True))
        try:
            for key in keys:
                if key not in self.graphs:
                    self.graphs[key] = self._checked(functools.partial(function, key, *inputs))
            return replayed(self.graphs[key]).clone()
        except RuntimeError as error:
            self.possible = False
            self.graphs.clear()
            reason = str(error).split('\n')[0]
            print(f'The run goes on without CUDA graphs: {reason}')
            return None

    # The generators yield as `untilAllHaveEnded` has it. The CPU waits for nothing in them, and
    # nothing is copied from it.

    def _pass(self, key, cnn_features, words, *padded):
        """The forward and the backward pass of each truncated part; yields the losses' sum."""
        model, (_, B, _, steps) = self.model, key
        model.optimizer.zero_grad(set_to_none=False)
        features = model.features({'cnn_features': cnn_features})
        total, state = torch.zeros((), device=features.device), None
        for part in zip(*padded):
            x, y, w = (rows[:steps].flatten() for rows in part)
            loss, state = model.lossOfWords(features, B // len(cnn_features), slice(None),
                                            x, y, w, [B] * steps, state)
            model.scaler.scale(loss / words).backward()
            total = total + loss.detach()
        yield False, total

    def _captions(self, key, cnn_features, start_tokens):
        model, (_, decoder, options) = self.model, key
        yield from decoder.__wrapped__(
            model.net, model.features({'cnn_features': cnn_features}), start_tokens, *options)

    def _checked(self, function):
        """The graphs of the generator that `function` makes.

        Raises:
            RuntimeError: they compute anything else than the generator, or cannot be recorded.
        """
        net, device = self.model.net, self.model.device
        buffers = [buffer.clone() for buffer in net.buffers()]

        def flat(tensors):
            return torch.cat([torch.zeros(1, device=device), *map(torch.flatten, tensors)])

        def restore():
            for buffer, before in zip(net.buffers(), buffers):
                buffer.copy_(before)

        def values(run):
            restore()
            torch.manual_seed(1)
            result = run().float()
            statistics = flat(net.buffers())
            gradients = flat(parameter.grad for parameter in net.parameters()
                             if parameter.grad is not None)  # it may be unused
            # float16 overflows until the scale of the loss has adapted
            return result, statistics, gradients.nan_to_num(0, 0, 0)

        try:
            with torch.random.fork_rng([device] if device.type == 'cuda' else []):
                for _ in range(2):  # loads all kernels, those too that add to gradients
                    expected = values(untilAllHaveEnded(function))
                torch.manual_seed(2)  # a seed that the graphs keep would differ
                graphs = self._recorded(function())
                found = values(functools.partial(replayed, graphs))
        finally:
            restore()
        limit = ROUNDING if self.model.precision == FLOAT32 else ROUNDING_IN_MIXED_PRECISION
        for ours, right in zip(found, expected):
            difference = (ours - right).norm() / (right.norm() + 1e-12)
            if not difference <= limit:
                raise RuntimeError(f'their results differ by {difference:.1e}.')
        return graphs

    def _recorded(self, steps):
        """The graphs of a generator, one from yield to yield, each with what it yields there."""
        graphs, going = [], True
        stream = torch.cuda.current_stream()
        while going is not False:
            graph = torch.cuda.CUDAGraph()
            try:
                # other threads may use the GPU meanwhile, as in a notebook
                with torch.cuda.graph(graph, self.pool, capture_error_mode='thread_local'):
                    going, result = next(steps)
            except RuntimeError as error:
                torch.cuda.set_stream(stream)  # torch leaves its own if it cannot end the capture
                raise error.__context__ or error
            self.pool = graph.pool()  # one for all, as one graph runs at a time
            graphs.append((graph, going, result))
        return graphs
