"""The cross entropy of many words, in little memory."""
import torch
import torch.nn.functional as F
from torch.autograd.function import once_differentiable

WORDS_AT_ONCE = {'cpu': 64, 'cuda': 512}  # as many as fit a CPU's cache; more on a GPU, where each part has to be launched


def crossEntropies(logits, tokens):
    """The cross entropy of each word in nats, float32 [N].

    Args:
        logits: [N, V], of any floating-point type.
        tokens: [N] integers, the right words.
    """
    return CrossEntropies.apply(logits, tokens)


class CrossEntropies(torch.autograd.Function):
    """F.cross_entropy of a few words at a time, computed again for their gradient, with the same results. So no log-softmax of
    all words [N, V] is kept, and no float32 copy of logits of a shorter type is made; both passes stay in the CPU's cache."""

    @staticmethod
    def forward(ctx, logits, tokens):
        ctx.save_for_backward(logits, tokens)
        return torch.cat([F.cross_entropy(*part, reduction='none') for part in _parts(logits, tokens)])

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient):
        logits, tokens = ctx.saved_tensors
        gradient_of_logits = torch.empty_like(logits)
        of_parts = gradient.split(_length(logits)), gradient_of_logits.split(_length(logits))
        for (part, target), gradient_of_losses, result in zip(_parts(logits, tokens), *of_parts):
            part = part.detach().requires_grad_()
            with torch.enable_grad():
                losses = F.cross_entropy(part, target, reduction='none')
            result.copy_(torch.autograd.grad(losses, part, gradient_of_losses)[0])
        return gradient_of_logits, None


def _length(logits):
    return WORDS_AT_ONCE.get(logits.device.type, len(logits))


def _parts(logits, tokens):
    """Pairs of a few words' logits in float32, and their right words."""
    return ((part.float(), target) for part, target in zip(logits.split(_length(logits)), tokens.split(_length(logits))))
