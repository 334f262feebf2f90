"""What training and decoding compute in parts equals the plain way through `forward`, which is also
how they use other students' networks."""
import copy
import importlib

import pytest
import torch
from test_models import TASKS, V, build, every_model, every_task
from torch.testing import assert_close

from utils.data.captionDataset import Collate
from utils.data.captionWords import END, START
from utils.model import Model
from utils.networks.decoding import beamSearch, greedyTokens


def plain(net):
    """The same network without what ours has besides the course's interface."""
    class Plain(type(net)):
        def forward(self, *arguments):
            return super().forward(*arguments)

    other = copy.deepcopy(net)
    other.__class__ = Plain
    return other


def model_of(net, module):
    model = Model.__new__(Model)
    model.net, model.device = net, torch.device('cpu')
    model.loss_fn = importlib.import_module(module).loss_fn
    model.feature_mean, model.precision, model.regularised = None, 'float32', False
    return model


def batch_of(features, lengths, truncated_backprop_length, vocabulary_size=V):
    """A batch of random captions of these numbers of words."""
    captions = [[START, *torch.randint(3, vocabulary_size, (length,)).tolist(), END]
                for length in lengths]
    return {'cnn_features': features,
            **Collate(truncated_backprop_length).captionTensors(captions)}


def expected_losses(net, batch, loss_fn):
    """The losses of a batch's parts, padding and all."""
    state = None
    for part in range(batch['numbOfTruncatedSequences']):
        x, y, weights = (batch[key][:, :, part] for key in ('xTokens', 'yTokens', 'yWeights'))
        logits, state = net(batch['cnn_features'], x, True, state)
        state = state.detach()
        yield loss_fn(logits, y, weights)[0]


@every_model
@pytest.mark.parametrize('lengths, truncated', [([2, 9, 5], 25), ([0, 4, 11], 4)])
def test_losses_and_gradients(task, lengths, truncated):
    net, features, _ = build(*task, batch=len(lengths))
    batch = batch_of(features, lengths, truncated)
    results = []
    for each in (net, plain(net), copy.deepcopy(net)):
        model = model_of(each, task[0])
        if len(results) < 2:
            losses = list(model.lossOfParts(batch))
        else:
            losses = list(expected_losses(each, batch, model.loss_fn))
        sum(losses).backward()
        results.append([torch.stack(losses).detach(), *(p.grad for p in each.parameters())])
    *found, expected = results
    for each in found:
        assert_close(each, expected, rtol=1e-5, atol=1e-5)


@every_task
def test_greedy_words_and_beams(task):
    """What follows an end does not count."""
    net, features, _ = build(*task, batch=16)
    net, features = net.double(), 40 * features.double() ** 3
    with torch.no_grad():
        net.output_layer.weight *= 30
        net.output_layer.bias[0] += 4
        start = torch.ones(16, dtype=torch.long)
        tokens, others = (greedyTokens(each, features, start) for each in (net, plain(net)))
        expected = net(features, start.unsqueeze(1), False)[0].argmax(2)  # [16, 40]
        ended = (expected == 0).cumsum(1) > 0
        assert torch.equal(tokens, others)
        assert torch.equal(tokens, expected.masked_fill(ended, 0)[:, :tokens.shape[1]])
        assert ended.any()
        (beams, log_p), (other_beams, other_log_p) = (
            beamSearch(each, features, start, 3) for each in (net, plain(net)))
    assert torch.equal(beams, other_beams) and beams.shape[:2] == (16, 3)
    assert_close(log_p, other_log_p)


def test_batch_norm_sees_the_same_images_in_every_part():
    """In training too: also where few captions reach the second part."""
    net, features, _ = build(*TASKS[3])
    statistics = []
    for each in (net, plain(net)):
        for layer in each.modules():
            layer.train(not isinstance(layer, torch.nn.Dropout))
        batch = batch_of(features, [2, 4, 9], 4)
        assert len(list(model_of(each, TASKS[3][0]).lossOfParts(batch))) == 3
        statistics.append(each.inputLayer[3].running_var)
    assert_close(*statistics)
