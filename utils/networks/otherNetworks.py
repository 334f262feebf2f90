"""Networks that have only what the course fixes, as other students' do."""
import torch


def wordwise(net):
    """The network itself if it `isWordwise`, else a `ThroughForward` around it."""
    return net if isWordwise(net) else ThroughForward(net)


def isWordwise(net):
    """Whether a network has the methods of `ThroughForward`, and no subclass of it or of its layers
    a `forward` of its own."""
    return isFast(net, 'logits_of_words') and isFast(getattr(net, 'rnn', None), 'over_words')


def warnOfForwards(net):
    """Names the cells whose own `forward` our layers would not call."""
    for cell in getattr(getattr(net, 'rnn', None), 'cells', ()):
        if hasattr(cell, 'equations') and not isFast(cell, 'equations'):
            print(f'{type(cell).__name__} has a forward, but no equations of its own. Layers that '
                  'call equations, as those of cocoSource_*.py do, will not use its forward.')


def isFast(module, method):
    """Whether a module's class has a method, and no subclass a `forward` without it."""
    for kind in type(module).__mro__:
        if method in vars(kind):
            return True
        if 'forward' in vars(kind):
            return False
    return module is None


class ThroughForward:
    """What training and decoding ask of a network, answered by its `forward`.

    Args:
        net: an `imageCaptionModel`.
    """

    def __init__(self, net):
        self.net = net

    def process_features(self, cnn_features):
        """What the network makes of the images: a tensor with a row for each."""
        return cnn_features

    def prepare(self, processed_features):
        """What all words of these images' captions share."""
        return processed_features

    def logits_of_words(self, cnn_features, words, batch_sizes, state=None):
        """Logits [N, V] of packed words [N], and the state [L, B, ..] after the last step; from
        what `prepare` returns, and the state before (None at the start).

        The words of captions of different lengths, the longest first: every caption's first word,
        then every second word, and so on; `batch_sizes` has the number of each.
        """
        sizes = torch.tensor(batch_sizes, device=words.device).unsqueeze(1)
        has_word = torch.arange(len(cnn_features), device=words.device) < sizes    # [T, B]
        tokens = torch.zeros_like(has_word, dtype=words.dtype)
        tokens[has_word] = words
        logits, state = self.net(cnn_features, tokens.t().contiguous(), True, state)  # [B, T, V]
        return logits.transpose(0, 1)[has_word], state
