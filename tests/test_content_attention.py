"""Content attention against a plain loop in float64, with one head and more, and any number of regions."""
import math

import pytest
import torch
from test_models import config_for
from test_training import build
from torch.nn.utils.rnn import PackedSequence

import cocoSource_task4_attention
from cocoSource_task4_attention import Attention, ContentAttention, ImageCaptionModel
from utils.model import Model
from utils.networks.decoding import beamSearch, greedyTokens

STATE, M, A = 8, 6, 16


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(cocoSource_task4_attention, 'CONTENT_SIZE', A)


def plainly(layer, state, regions):
    """The equations for one word, number by number: state [STATE], regions [M, K] → attended [heads·M], weights [K]."""
    K, attended, mean = regions.shape[1], [], [0.0] * regions.shape[1]
    W_s, b, W_r = layer.of_state.weight.tolist(), layer.of_state.bias.tolist(), layer.of_region.weight.tolist()
    for head in range(layer.heads):
        scores = []
        for k in range(K):
            score = 0.0
            for unit in range(A):
                row = head * A + unit
                total = b[row] + sum(W_s[row][i] * float(state[i]) for i in range(STATE))
                total += sum(W_r[row][m] * float(regions[m, k]) for m in range(M))
                score += layer.score[head, unit].item() * math.tanh(total)
            scores.append(score)
        powers = [math.exp(score - max(scores)) for score in scores]
        weights = [power / sum(powers) for power in powers]
        attended += [sum(weights[k] * float(regions[m, k]) for k in range(K)) for m in range(M)]
        mean = [so_far + weight / layer.heads for so_far, weight in zip(mean, weights)]
    return torch.tensor(attended, dtype=torch.float64), torch.tensor(mean, dtype=torch.float64)


@pytest.mark.parametrize('heads', [1, 2, 3])
@pytest.mark.parametrize('K', [1, 10, 36])
def test_it_is_the_equations(heads, K):
    torch.manual_seed(heads)
    layer = ContentAttention(STATE, M, heads).double().eval()
    sizes = torch.tensor([3, 2, 1])                                              # captions of three words, two and one
    states, regions = torch.randn(6, STATE).double(), torch.randn(3, M, K).double()
    attended, weights = layer.attend(PackedSequence(states, sizes), layer.prepare(regions))
    assert attended.shape == (6, heads * M) and weights.shape == (6, K)
    for word, image in enumerate((0, 1, 2, 0, 1, 0)):
        expected, of_regions = plainly(layer, states[word], regions[image])
        assert torch.allclose(attended[word], expected, atol=1e-12) and torch.allclose(weights[word], of_regions, atol=1e-12)
    assert torch.allclose(weights.sum(1), torch.ones(6).double())


def test_heads_do_not_touch_each_other():
    torch.manual_seed(1)
    layer = ContentAttention(STATE, M, 2).eval()
    states, regions = PackedSequence(torch.randn(2, STATE), torch.tensor([2])), torch.randn(2, M, 5)
    before, _ = layer.attend(states, layer.prepare(regions))
    with torch.no_grad():
        layer.score[1] += 1
        layer.of_state.weight[A:] *= 3
    after, _ = layer.attend(states, layer.prepare(regions))
    assert torch.equal(after[:, :M], before[:, :M]) and not torch.allclose(after[:, M:], before[:, M:])


def test_the_order_of_regions_does_not_matter():
    torch.manual_seed(1)
    layer = ContentAttention(STATE, M, 2).eval()
    states, regions, order = PackedSequence(torch.randn(2, STATE), torch.tensor([2])), torch.randn(2, M, 7), torch.randperm(7)
    attended, weights = layer.attend(states, layer.prepare(regions))
    again, weights_again = layer.attend(states, layer.prepare(regions[:, :, order]))
    assert torch.allclose(again, attended, atol=1e-6) and torch.allclose(weights_again, weights[:, order], atol=1e-6)


def model_for(K=10, **changes):
    config = {**config_for('LSTM', 2), 'attention': 'content', 'numberOfRegions': K, **changes}
    torch.manual_seed(2)
    return ImageCaptionModel(config).eval(), config


@pytest.mark.parametrize('heads, K', [(1, 10), (2, 36), (2, 1)])
def test_step_by_step_is_all_at_once(heads, K):
    net, config = model_for(K, attentionHeads=heads)
    features = torch.randn(3, K, config['number_of_cnn_features'])
    tokens = torch.randint(config['vocabulary_size'], (3, 5))
    logits, state = net(features, tokens, True)
    image, step_state = net.prepare(net.process_features(features)), None
    for step in range(5):
        of_step, step_state = net.next_words(image, tokens[:, step], step_state)
        assert torch.allclose(of_step, logits[:, step], atol=1e-5)
    assert torch.allclose(step_state, state, atol=1e-5)
    weights = net.attention_over(features, tokens)
    assert weights.shape == (3, 5, K) and torch.allclose(weights.sum(2), torch.ones(3, 5), atol=1e-6)


def test_greedy_and_beam_captions():
    net, config = model_for(12, attentionHeads=2)
    features, start = torch.randn(4, 12, config['number_of_cnn_features']), torch.ones(4, dtype=torch.int64)
    with torch.no_grad():
        greedy, (beam, _) = greedyTokens(net, features, start), beamSearch(net, features, start, 1)
    assert torch.equal(greedy, beam[:, 0, :greedy.shape[1]])


def test_what_is_asked_for_is_built():
    assert isinstance(model_for(attention='assignment')[0].attention_layer, Attention)
    assert model_for(36, attention='assignment')[0].attention_layer[3].out_features == 36
    with pytest.raises(ValueError, match='one head'):
        model_for(attention='assignment', attentionHeads=2)


@pytest.mark.usefixtures('shared_meteor')
def test_it_learns_and_goes_on(course_folder, config, model_param):
    course_folder()
    config = {**config, 'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features', 'attention': 'content',
              'attentionHeads': 2}
    trainer = build(config, model_param, ImageCaptionModel)
    before = trainer.model.net.attention_layer.score.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.net.attention_layer.score, before)
    again = build(config, model_param, ImageCaptionModel).model
    assert again.start_epoch == 3
    saved = trainer.model.net.state_dict()
    assert all(torch.equal(weight, saved[name]) for name, weight in again.net.state_dict().items())


def test_a_model_of_another_attention_is_another(config, model_param):
    sizes = {**config, 'vocabulary_size': 20, 'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'}
    names = [set(Model({**sizes, 'attention': kind}, model_param, cocoSource_task4_attention.ImageCaptionModel).net.state_dict())
             for kind in ('assignment', 'content')]
    assert names[0] - names[1] == {f'attention_layer.{layer}.{kind}' for layer in (1, 3) for kind in ('weight', 'bias')}
