"""Networks that have only what the course fixes, as other students' do."""
import torch


def wordwise(net):
    """The network itself where it has the three methods of `ThroughForward`, else one of those."""
    return net if hasattr(net, 'logits_of_words') else ThroughForward(net)


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


def attentionOver(net, cnn_features, x_tokens):
    """The attention's weights [B, T, K] at each of the words [B, T]; None where the network has no
    attention that can be watched."""
    if hasattr(net, 'attention_over'):
        return net.attention_over(cnn_features, x_tokens)
    layers = [layer for name, layer in net.named_modules() if name.endswith('attention_layer')]
    if not layers:
        return None
    weights_of_steps = []                                                # each [B, K]
    with layers[0].register_forward_hook(
            lambda layer, states, weights: weights_of_steps.append(weights)):
        net(cnn_features, x_tokens, True)
    B, T = x_tokens.shape
    if [weights.shape[:-1] for weights in weights_of_steps] != [(B,)] * T:
        return None
    return torch.stack(weights_of_steps, dim=1)
