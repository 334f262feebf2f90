"""What trainer and validator compute the fast way equals the plain way through `forward` and `loss_fn`."""
import copy
import importlib

import pytest
import torch
from test_models import B, V, build, every_model

from utils.data.captionDataset import Collate
from utils.model import Model
from utils.networks.decoding import beamSearch, greedyTokens


def plain(net):
    """The same network without its faster methods."""
    class Plain(type(net)):
        def __getattribute__(self, name):
            if name in ('logits_of_words', 'next_words', 'attention_over'):
                raise AttributeError(name)
            return super().__getattribute__(name)

    other = copy.deepcopy(net)
    other.__class__ = Plain
    return other


def model_of(net, module):
    model = Model.__new__(Model)
    model.net, model.device, model.loss_fn = net, torch.device('cpu'), importlib.import_module(module).loss_fn
    model.feature_mean, model.precision, model.regularised = None, 'float32', False
    return model


def batch_of(features, lengths, truncated_backprop_length):
    captions = [[1] + torch.randint(3, V, (length,)).tolist() + [0] for length in lengths]
    return {'cnn_features': features, **Collate(truncated_backprop_length).captionTensors(captions)}


@every_model
@pytest.mark.parametrize('lengths, truncated', [([2, 9, 5], 25), ([0, 4, 11], 4), ([3, 3, 3], 25), ([7], 3)])
def test_losses_and_gradients(module, cell, layers, lengths, truncated):
    net, features, _ = build(module, cell, layers, batch=len(lengths))
    batch = batch_of(features, lengths, truncated)
    gradients = []
    for each in (net, plain(net)):
        losses = list(model_of(each, module).lossOfParts(batch))
        assert len(losses) == batch['numbOfTruncatedSequences']
        sum(losses).backward()
        gradients.append((torch.stack(losses).detach(), {name: p.grad for name, p in each.named_parameters()}))
    (fast_losses, fast), (plain_losses, slow) = gradients
    torch.testing.assert_close(fast_losses, plain_losses, rtol=1e-5, atol=1e-5)
    assert fast.keys() == slow.keys() and all(gradient is not None for gradient in fast.values())
    for name in fast:
        torch.testing.assert_close(fast[name], slow[name], rtol=1e-5, atol=1e-5, msg=name)


@every_model
def test_greedy_words(module, cell, layers):
    """Some captions end early, some never; what follows an end does not count."""
    net, features, _ = build(module, cell, layers, batch=16)
    features = 40 * torch.rand_like(features) ** 3
    with torch.no_grad():
        net.output_layer.weight *= 30
        net.output_layer.bias[0] += 10
    start = torch.ones(16, 1, dtype=torch.long)
    batch = {'cnn_features': features, 'xTokens': start.unsqueeze(1)}
    fast, slow = (model_of(each, module).greedyTokens(batch) for each in (net, plain(net)))

    def until_end(tokens):
        return tokens[:tokens.index(0)] if 0 in tokens else tokens

    assert [until_end(tokens) for tokens in fast] == [until_end(tokens) for tokens in slow]
    assert all(set(tokens[len(until_end(tokens)):]) <= {0} for tokens in fast)


@every_model
def test_beams(module, cell, layers):
    """A network that has only `forward` is searched through it."""
    net, features, _ = build(module, cell, layers, batch=8)
    net = net.double()
    features, start = features.double(), torch.ones(8, dtype=torch.long)
    with torch.no_grad():
        net.output_layer.weight *= 30
        (fast, log_p), (slow, log_p_of_slow) = (beamSearch(each, features, start, 3) for each in (net, plain(net)))
    assert torch.equal(fast, slow) and fast.shape[:2] == (8, 3)
    torch.testing.assert_close(log_p, log_p_of_slow)


def test_greedy_words_stop_when_every_caption_has_ended():
    net, features, _ = build('cocoSource_task4_attention', 'LSTM', 2)
    with torch.no_grad():
        net.output_layer.weight.zero_()
        net.output_layer.bias.copy_(torch.eye(V)[0])
    assert greedyTokens(net, features, torch.ones(B, dtype=torch.long)).tolist() == [[0]] * B


def test_batch_norm_sees_the_same_images_in_every_part():
    """In training too: a second part that few captions reach changes the running statistics like the plain way."""
    net, features, _ = build('cocoSource_task4_attention', 'LSTM', 2)
    statistics = []
    for each in (net, plain(net)):
        for layer in each.modules():
            layer.train(not isinstance(layer, torch.nn.Dropout))
        for loss in model_of(each, 'cocoSource_task4_attention').lossOfParts(batch_of(features, [2, 4, 9], 4)):
            loss.backward()
        statistics.append(each.inputLayer[3].running_var)
    torch.testing.assert_close(*statistics)
