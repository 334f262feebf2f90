"""Networks that have nothing but what the course fixes, other students' say: answers through their `forward`."""
import torch


class ThroughForward:
    """The three questions of `utils.networks.decoding`, answered for such a network.

    Args:
        net: an `imageCaptionModel`.
    """

    def __init__(self, net):
        self.net = net

    def process_features(self, cnn_features):
        return cnn_features

    def prepare(self, cnn_features):
        return cnn_features

    def next_words(self, cnn_features, word, state):
        logits, state = self.net(cnn_features, word.unsqueeze(1), True, state)   # [B, 1, V]
        return logits[:, 0], state


def attentionLayer(net):
    """The attention layer of a network, which some own and some keep inside their `rnn`; None where there is none."""
    return getattr(net, 'attention_layer', None) or getattr(getattr(net, 'rnn', None), 'attention_layer', None)


def attentionOver(net, cnn_features, x_tokens):
    """The attention's weights [B, T, K] while a network reads words [B, T]; None where it has no attention to be seen."""
    if hasattr(net, 'attention_over'):
        return net.attention_over(cnn_features, x_tokens)
    layer = attentionLayer(net)
    if layer is None:
        return None
    of_steps = []  # [B, K] each: such networks go step by step
    hook = layer.register_forward_hook(lambda layer, seen, weights: of_steps.append(weights))
    try:
        net(cnn_features, x_tokens, True)
    finally:
        hook.remove()
    B, T = x_tokens.shape
    if [weights.shape[:-1] for weights in of_steps] != [(B,)] * T:
        return None
    return torch.stack(of_steps, dim=1)
