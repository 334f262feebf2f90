"""Training steps on a GPU as CUDA graphs.

A training step of these networks is some thousand small kernels. Launching them one by one takes
the CPU longer than computing them takes the GPU. A CUDA graph launches all of them at once, as they
were recorded (https://pytorch.org/docs/stable/notes/cuda.html#cuda-graphs).

Recorded are the forward and the backward pass, once for each length of a batch's captions, which
are padded to the longest. The optimizer stays outside. Other batches are learned without a graph:
captions in several truncated parts, and the last batch of an epoch, which is smaller.
"""
import torch
import torch.nn.functional as F

from utils.networks.precision import FLOAT32
from utils.processes.distributed import worldSize

ROUNDING, ROUNDING_IN_MIXED_PRECISION = 1e-3, .05  # of gradients, relative to their norm


class StepGraphs:
    """The graphs of a `Model`'s training steps.

    Each is compared with a step without. Where loss or gradients differ by more than rounding, or
    recording fails, training goes on without graphs, and a sentence says so.
    """

    def __init__(self, model):
        self.model = model
        version = tuple(map(int, torch.__version__.split('.')[:2]))
        self.possible = (model.device.type == 'cuda' and model.modelParam.get('cudaGraphs', True)
                         and hasattr(model.net, 'logits_of_words') and worldSize() == 1
                         and version >= (2, 1))  # before that new seeds are ignored
        self.inputs = {}  # by place and shape: the tensors that the kernels read
        self.graphs = {}  # by shape: a graph, and the loss that it computes
        self.pool = None  # the graphs' memory

    def loss(self, batch, words):
        """The loss of a batch, summed over its words; the gradients of the loss per word are left
        in the network. None where the batch is to be learned without a graph."""
        model = self.model
        if (not self.possible or batch['numbOfTruncatedSequences'] > 1
                or len(batch['cnn_features']) != model.modelParam['batch_size']):
            return None
        (x, y, w, _), = model.wordsOfParts(batch, slice(None))           # [T, B]
        T, captions = x.shape
        longest = model.config['truncated_backprop_length']
        padded = (F.pad(rows, (0, 0, 0, longest - T)) for rows in (x, y, w))
        tensors = batch['cnn_features'], torch.tensor(words), *padded
        inputs = []
        for place, tensor in enumerate(tensors):
            key = place, tensor.shape
            if key not in self.inputs:
                self.inputs[key] = torch.empty_like(tensor, device=model.device)
            inputs.append(self.inputs[key].copy_(tensor, non_blocking=True))
        try:
            for steps in longest, T:  # the memory of the longest is enough for all
                key = model.net.training, captions, steps
                if key not in self.graphs:
                    self.graphs[key] = self._checked(steps, *inputs)
            graph, loss = self.graphs[key]
            graph.replay()
            return loss.clone()
        except RuntimeError as error:
            self.possible = False
            self.graphs.clear()
            reason = str(error).split('\n')[0]
            print(f'Training goes on without CUDA graphs: {reason}', flush=True)
            return None

    def _pass(self, steps, cnn_features, words, *padded):
        """The forward and the backward pass over so many steps, of tensors on the GPU. The CPU
        waits for nothing, and nothing is copied from it."""
        model = self.model
        model.optimizer.zero_grad(set_to_none=False)
        B = padded[0].shape[1]
        x, y, w = (rows[:steps].flatten() for rows in padded)
        loss, _ = model.lossOfWords(
            model.features({'cnn_features': cnn_features}), B // len(cnn_features), slice(None),
            x, y, w, [B] * steps, None)
        model.scaler.scale(loss / words).backward()
        return loss.detach()

    def _checked(self, *inputs):
        """The graph of `_pass` with these inputs, and its loss.

        Raises:
            RuntimeError: it computes anything else than the pass, or cannot be recorded.
        """
        net, device = self.model.net, self.model.device
        buffers = [buffer.clone() for buffer in net.buffers()]

        def result(run):
            torch.manual_seed(1)
            loss = run()
            for buffer, before in zip(net.buffers(), buffers):
                buffer.copy_(before)
            gradients = [parameter.grad.flatten() for parameter in net.parameters()
                         if parameter.grad is not None]  # it may be used nowhere
            # float16 overflows until the scale of the loss has adapted
            return loss.clone(), torch.cat(gradients).nan_to_num(0, 0, 0)

        with torch.random.fork_rng([device] if device.type == 'cuda' else []):
            expected = result(lambda: self._pass(*inputs))  # loads the kernels, too
            graph, loss = self._recorded(*inputs)

            def replay():
                graph.replay()
                return loss

            found = result(replay)
        limit = ROUNDING if self.model.precision == FLOAT32 else ROUNDING_IN_MIXED_PRECISION
        for ours, right in zip(found, expected):
            difference = (ours - right).norm() / (right.norm() + 1e-12)
            if not difference <= limit:
                raise RuntimeError(f'their loss or gradients differ by {difference:.1e}.')
        return graph, loss

    def _recorded(self, *inputs):
        graph = torch.cuda.CUDAGraph()
        # other threads may use the GPU meanwhile, as for pinned memory
        with torch.cuda.graph(graph, self.pool, capture_error_mode='thread_local'):
            loss = self._pass(*inputs)
        self.pool = graph.pool()  # one for all, as one graph runs at a time
        return graph, loss
