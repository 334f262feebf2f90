"""Layers, states, gradients and decoding of the four models; all sizes are small and unequal."""
import importlib

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused

B, T, V, E, D, H = 3, 6, 23, 5, 11, 7
TASKS = [('cocoSource_xcnnfused', 'RNN', 1), ('cocoSource_task2_gru', 'GRU', 2),
         ('cocoSource_task3_lstm', 'LSTM', 2), ('cocoSource_task4_attention', 'LSTM', 2)]
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
every_task = pytest.mark.parametrize('task', TASKS)
every_model = pytest.mark.parametrize('task', [
    *TASKS, ('cocoSource_task2_gru', 'RNN', 3), ('cocoSource_task3_lstm', 'GRU', 1),
    ('cocoSource_task4_attention', 'LSTM', 3)])


def config_for(cell, layers):
    return {'vocabulary_size': V, 'embedding_size': E, 'number_of_cnn_features': D,
            'hidden_state_sizes': H, 'num_rnn_layers': layers, 'cellType': cell}


def build(module, cell, layers, batch=B, hidden=H):
    """The model without dropout, and a batch for it: features, tokens."""
    torch.manual_seed(1)
    config = {**config_for(cell, layers), 'hidden_state_sizes': hidden}
    net = importlib.import_module(module).ImageCaptionModel(config).eval()
    features = torch.rand(batch, 10, D) if 'attention' in module else torch.rand(batch, D)
    return net, features, torch.randint(0, V, (batch, T))


def linear(inputs, outputs):
    return f'Linear(in_features={inputs}, out_features={outputs}, bias=True)'


@every_task
def test_the_layers_are_the_assignments(task):
    net, features, tokens = build(*task)
    dropout, activation = 'Dropout(p=0.25, inplace=False)', 'LeakyReLU(negative_slope=0.01)'
    expected = [dropout, linear(D, 512), activation]
    if 'attention' in task[0]:
        expected = [dropout, f'Conv2d({D}, 512, kernel_size=(1, 1), stride=(1, 1))',
                    'Flatten(start_dim=2, end_dim=-1)', str(nn.BatchNorm1d(512)), activation]
        assert list(map(str, net.attention_layer)) == [
            dropout, linear(2 * H, 50), activation, linear(50, 10), 'Softmax(dim=-1)']
    assert list(map(str, net.inputLayer)) == expected
    assert str(net.embedding_layer) == f'Embedding({V}, {E})'
    assert str(net.output_layer) == linear(H, V)
    assert net(features, tokens, True)[0].std() < 1  # at first all words are about as likely


@every_model
def test_the_layers_are_their_cells_step_by_step(task):
    """The time loop written plainly over cell.forward, and one pass carried on by another."""
    net, features, tokens = build(*task)
    net, features = net.double(), features.double()
    image = net.process_features(features)
    module, cell, layers = task
    attention = 'attention' in module
    k = 2 if cell == 'LSTM' else 1
    state = torch.randn(layers, B, k * H, dtype=torch.float64)
    expected, states = [], list(state)
    for t in range(T):
        seen = image.max(2).values if attention else image
        x = torch.cat([net.embedding_layer(tokens[:, t]), seen], dim=1)
        for number, one_cell in enumerate(net.rnn.cells):
            if attention and number == layers - 1:
                weights = net.attention_layer(states[number - 1])        # [B, 10]
                x = torch.cat([x, (image * weights.unsqueeze(1)).sum(2)], dim=1)
            states[number] = one_cell(x, states[number])
            x = states[number][:, :H]
        expected.append(net.output_layer(x))
    first, between = net(features, tokens[:, :2], True, state)
    second, last = net(features, tokens[:, 2:], True, between)
    assert first.is_contiguous() and second.shape == (B, T - 2, V)
    logits = torch.cat([first, second], dim=1), torch.stack(expected, dim=1)
    assert_close(*logits)
    assert_close(last, torch.stack(states))
    assert_close(*(torch.autograd.grad(each.square().sum(), [*net.parameters()])
                   for each in logits))


@every_model
def test_free_running_feeds_back_the_most_likely_word(task):
    net, features, tokens = build(*task)
    with torch.no_grad():
        logits, last = net(features, tokens, False)
        assert logits.shape == (B, 40, V)
        word, state = tokens[:, :1], None
        for step in range(40):
            expected, state = net(features, word, True, state)
            assert_close(logits[:, step], expected[:, 0])
            word = expected.argmax(dim=2)
    assert_close(last, state)


@needs_gpu
@every_task
def test_the_gpu_gives_what_the_cpu_gives(task):
    net, features, tokens = build(*task)
    expected, _ = net(features, tokens, True)
    logits, state = net.cuda()(features.cuda(), tokens.cuda(), True)
    assert state.is_cuda
    assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_any_module_may_be_the_attention_layer():
    """Also one that changes its input in place: a copy, so that the layer below keeps its state."""
    net, features, tokens = build(*TASKS[3])
    net.attention_layer[0] = activation = nn.SiLU()
    expected, _ = net(features, tokens, True)
    activation.inplace = True

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(*net.attention_layer)

        def forward(self, states):
            return self.inner(states)

    net.attention_layer = Layer()
    logits, _ = net(features, tokens, True)
    assert torch.equal(logits, expected)
    logits.sum().backward()


def test_loss_is_the_weighted_cross_entropy():
    logits = torch.randn(B, T, V, dtype=torch.float64, requires_grad=True)
    tokens, weights = torch.randint(0, V, (B, T)), torch.rand(B, T, dtype=torch.float64)
    weights[:, 4:] = 0
    sum_loss, mean_loss = cocoSource_xcnnfused.loss_fn(logits, tokens, weights)
    expected = sum(
        weights[b, t] * (logits[b, t].exp().sum().log() - logits[b, t, tokens[b, t]])
        for b in range(B) for t in range(T))
    assert_close(sum_loss, expected)
    assert_close(mean_loss, expected / (weights.sum() + 1e-7), rtol=1e-12, atol=0)
    for loss in sum_loss, mean_loss:
        gradient, = torch.autograd.grad(loss, logits, retain_graph=True)
        assert not gradient[:, 4:].any() and gradient[:, :4].any()
    assert cocoSource_xcnnfused.loss_fn(logits, tokens, 0 * weights) == (0, 0)


@pytest.mark.parametrize('build_it, message', [
    (lambda: cocoSource_xcnnfused.ImageCaptionModel(config_for('GRU', 1)), "not 1 of 'GRU'"),
    (lambda: cocoSource_xcnnfused.ImageCaptionModel(config_for('RNN', 2)), "not 2 of 'RNN'"),
    (lambda: cocoSource_task2_gru.RNN(E, H, 2, 'LSTM'), "'LSTM' is unknown here; .* RNN, GRU$"),
    (lambda: cocoSource_task3_lstm.RNN(E, H, 2, 'lstm'), "'lstm' is .* RNN, GRU, LSTM$"),
    (lambda: cocoSource_task2_gru.RNN(E, H, 0), 'num_rnn_layers is 0'),
    (lambda: cocoSource_task4_attention.RNN(E, H, 1, H), 'num_rnn_layers is 1'),
    (lambda: cocoSource_task4_attention.RNN(E, H, 2, H, 'GRU'), "'GRU' is unknown here"),
])
def test_impossible_models_are_named(build_it, message):
    with pytest.raises(ValueError, match=message):
        build_it()
