"""Content attention against its equations, word by word in float64."""
import pytest
import torch
from test_models import D, V, config_for
from torch.testing import assert_close

import cocoSource_task4_attention
from cocoSource_task4_attention import ContentAttention, ImageCaptionModel
from utils.networks.decoding import beamSearch, greedyTokens

STATE, M, A = 8, 6, 16


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(cocoSource_task4_attention, 'CONTENT_SIZE', A)


def plainly(layer, state, regions):
    """For one word: state [STATE], regions [M, K] → attended features [heads·M], weights [K]."""
    attended, mean = [], 0
    for head in range(layer.heads):
        rows = slice(head * A, (head + 1) * A)
        of_state = layer.of_state.weight[rows] @ state + layer.of_state.bias[rows]
        weights = torch.stack([
            layer.score[head] @ torch.tanh(of_state + layer.of_region.weight[rows] @ region)
            for region in regions.t()]).softmax(0)
        attended.append(regions @ weights)
        mean += weights / layer.heads
    return torch.cat(attended), mean


@pytest.mark.usefixtures('small')
@pytest.mark.parametrize('heads, K', [(1, 10), (3, 36), (2, 1)])
def test_it_is_the_equations(heads, K):
    torch.manual_seed(heads)
    layer = ContentAttention(STATE, M, heads).double().eval()
    states, regions = torch.randn(6, STATE).double(), torch.randn(3, M, K).double()
    batch_sizes = [3, 2, 1]  # captions of three words, two and one
    others = batch_sizes, regions, layer.project(regions)
    attended, weights = layer.attend(states, *others)
    assert torch.autograd.gradcheck(lambda states: layer.attend(states, *others)[0],
                                    states.clone().requires_grad_())
    for word, image in enumerate((0, 1, 2, 0, 1, 0)):
        expected, expected_weights = plainly(layer, states[word], regions[image])
        assert_close(attended[word], expected)
        assert_close(weights[word], expected_weights)
    without_state = layer.attend(0 * states, *others)
    layer.train().dropout.p = 1.0
    assert_close(layer.attend(states, *others), without_state)


def model_for(K, **changes):
    torch.manual_seed(2)
    return ImageCaptionModel(
        {**config_for('LSTM', 2), 'attention': 'content', 'numberOfRegions': K, **changes}).eval()


@pytest.mark.usefixtures('small')
def test_step_by_step_is_all_at_once():
    net = model_for(36, attentionHeads=2)
    features, tokens = torch.randn(3, 36, D), torch.randint(V, (3, 5))
    with torch.no_grad():
        logits, last = net(features, tokens, True)
        prepared, state = net.prepare(net.process_features(features)), None
        for step in range(5):
            of_step, state = net.logits_of_words(prepared, tokens[:, step], [3], state)
            assert_close(of_step, logits[:, step])
        assert_close(state, last)
        weights = net.attention_over(features, tokens)
        assert weights.shape == (3, 5, 36)
        assert_close(weights.sum(2), torch.ones(3, 5))
        start = torch.ones(3, dtype=torch.int64)
        greedy, (beam, _) = greedyTokens(net, features, start), beamSearch(net, features, start, 1)
    assert torch.equal(greedy, beam[:, 0, :greedy.shape[1]])
    net(features, tokens, True)[0].sum().backward()
    assert all(p.grad.any() for p in net.attention_layer.parameters())


def test_what_is_asked_for_is_built():
    layer = model_for(36, attentionHeads=2).attention_layer
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        'score': (2, 512), 'of_state.weight': (1024, 14), 'of_state.bias': (1024,),
        'of_region.weight': (1024, 512)}
    assert str(layer.dropout) == 'Dropout(p=0.25, inplace=False)'
    assert abs(layer.score.var() * 512 - 1) < 0.2
    assert model_for(36, attention='assignment').attention_layer[3].out_features == 36
    with pytest.raises(ValueError, match='one head'):
        model_for(10, attention='assignment', attentionHeads=2)
