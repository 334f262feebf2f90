"""Shapes, states, gradients and decoding of the four models; all sizes are small and unequal."""
import importlib
import math

import pytest
import torch
from torch import nn

import cocoSource_task2_gru
import cocoSource_task3_lstm
import cocoSource_task4_attention
import cocoSource_xcnnfused

B, T, V, E, D, H = 3, 6, 23, 5, 11, 7
MODELS = [('cocoSource_xcnnfused', 'RNN', 1), *[('cocoSource_task2_gru', cell, layers)
                                                for cell in ('RNN', 'GRU') for layers in (1, 2, 3)],
          *[('cocoSource_task3_lstm', cell, layers) for cell in ('RNN', 'GRU', 'LSTM') for layers in (1, 2, 3)],
          *[('cocoSource_task4_attention', 'LSTM', layers) for layers in (2, 3)]]
every_model = pytest.mark.parametrize('module, cell, layers', MODELS)


def config_for(cell, layers):
    return {'vocabulary_size': V, 'embedding_size': E, 'number_of_cnn_features': D, 'hidden_state_sizes': H,
            'num_rnn_layers': layers, 'cellType': cell}


def build(module, cell, layers, batch=B, hidden=H):
    """The model without dropout, and a batch for it: features, tokens."""
    torch.manual_seed(1)
    config = {**config_for(cell, layers), 'hidden_state_sizes': hidden}
    net = importlib.import_module(module).ImageCaptionModel(config).eval()
    features = torch.rand(batch, 10, D) if 'attention' in module else torch.rand(batch, D)
    return net, features, torch.randint(0, V, (batch, T))


@every_model
@pytest.mark.parametrize('batch', [1, B])
def test_shapes(module, cell, layers, batch):
    net, features, tokens = build(module, cell, layers, batch)
    state_size = 2 * H if cell == 'LSTM' else H
    logits, state = net(features, tokens, True)
    assert logits.shape == (batch, T, V) and state.shape == (layers, batch, state_size)
    logits, state = net(features, tokens, False)
    assert logits.shape == (batch, 40, V) and state.shape == (layers, batch, state_size)


@every_model
def test_the_names_that_the_course_fixes(module, cell, layers):
    net, _, _ = build(module, cell, layers)
    assert (net.vocabulary_size, net.embedding_size, net.number_of_cnn_features) == (V, E, D)
    assert (net.hidden_state_sizes, net.num_rnn_layers, net.cell_type, net.nnmapsize) == (H, layers, cell, 512)
    assert net.simplifiedrnn == (module == 'cocoSource_xcnnfused')
    assert len(net.rnn.cells) == layers
    assert isinstance(net.embedding_layer, nn.Embedding) and isinstance(net.output_layer, nn.Linear)
    sizes = [E + 512] + [H] * (layers - 1)
    if 'attention' in module:
        sizes[-1] = H + 512
        assert [type(layer) for layer in net.attention_layer] == [nn.Dropout, nn.Linear, nn.LeakyReLU, nn.Linear,
                                                                  nn.Softmax]
    assert [tuple(c.weight.shape) for c in net.rnn.cells] == [(size + H, H) for size in sizes]


@every_model
def test_a_state_carried_on_equals_one_long_pass(module, cell, layers):
    net, features, tokens = build(module, cell, layers)
    whole, last = net(features, tokens, True)
    first, state = net(features, tokens[:, :2], True)
    second, state = net(features, tokens[:, 2:], True, state)
    torch.testing.assert_close(torch.cat([first, second], dim=1), whole)
    torch.testing.assert_close(state, last)


@every_model
def test_free_running_feeds_back_the_most_likely_word(module, cell, layers):
    net, features, tokens = build(module, cell, layers)
    with torch.no_grad():
        logits, last = net(features, tokens, False)
        word, state = tokens[:, :1], None
        for step in range(40):
            expected, state = net(features, word, True, state)
            torch.testing.assert_close(logits[:, step], expected[:, 0])
            word = expected.argmax(dim=2)
    torch.testing.assert_close(last, state)


@every_model
def test_gradients_reach_every_parameter(module, cell, layers):
    net, features, tokens = build(module, cell, layers)
    logits, _ = net(features, tokens, True)
    cocoSource_xcnnfused.loss_fn(logits, tokens, torch.ones(B, T))[0].backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


@every_model
def test_the_layers_are_their_cells_step_by_step(module, cell, layers):
    """The time loop written plainly over cell.forward."""
    net, features, tokens = build(module, cell, layers)
    image = net.process_features(features)
    attention = 'attention' in module
    k = 2 if cell == 'LSTM' else 1
    state = torch.randn(layers, B, k * H)
    expected, states = [], list(state)
    for t in range(T):
        x = torch.cat([net.embedding_layer(tokens[:, t]), image.max(2).values if attention else image], dim=1)
        for number, one_cell in enumerate(net.rnn.cells):
            if attention and number == layers - 1:
                weights = net.attention_layer(states[number - 1])                # [B, 10]
                x = torch.cat([x, (image * weights.unsqueeze(1)).sum(2)], dim=1)
            states[number] = one_cell(x, states[number])
            x = states[number][:, :H]
        expected.append(net.output_layer(x))
    logits, last = net(features, tokens, True, state)
    torch.testing.assert_close(logits, torch.stack(expected, dim=1))
    torch.testing.assert_close(last, torch.stack(states))


@every_model
def test_the_state_takes_the_inputs_dtype(module, cell, layers):
    net, features, tokens = build(module, cell, layers)
    logits, state = net.double()(features.double(), tokens, True)
    assert logits.dtype == state.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@every_model
def test_the_gpu_gives_what_the_cpu_gives(module, cell, layers):
    net, features, tokens = build(module, cell, layers)
    expected, _ = net(features, tokens, True)
    logits, state = net.cuda()(features.cuda(), tokens.cuda(), True)
    assert state.is_cuda
    torch.testing.assert_close(logits.cpu(), expected, rtol=1e-3, atol=1e-3)


def test_simple_cell_equals_torchs_with_copied_weights():
    ours, theirs = cocoSource_xcnnfused.RNNsimpleCell(H, E), nn.RNNCell(E, H)
    ours.bias.data.normal_()
    theirs.weight_ih.data, theirs.weight_hh.data = ours.weight.data[:E].t(), ours.weight.data[E:].t()
    theirs.bias_ih.data = ours.bias.data[0]
    theirs.bias_hh.data.zero_()
    x, state = torch.randn(B, E), torch.randn(B, H)
    torch.testing.assert_close(ours(x, state), theirs(x, state))


def test_parameter_counts_worked_out_by_hand():
    config = {**config_for('RNN', 1), 'vocabulary_size': 10000, 'embedding_size': 300, 'number_of_cnn_features': 2048,
              'hidden_state_sizes': 512}
    embedding, output, image = 10000 * 300, 512 * 10000 + 10000, 2048 * 512 + 512
    first, second = (812 + 512) * 512 + 512, (512 + 512) * 512 + 512              # one gate of layer one, of layer two
    last = (1024 + 512) * 512 + 512                                               # one gate of task 4's last layer
    attention = 1024 * 50 + 50 + 50 * 10 + 10
    shared = embedding + output + image
    for model, cell, layers, expected in (
            (cocoSource_xcnnfused, 'RNN', 1, shared + first), (cocoSource_task2_gru, 'GRU', 2, shared + 3 * (first + second)),
            (cocoSource_task3_lstm, 'LSTM', 2, shared + 4 * (first + second)),
            (cocoSource_task4_attention, 'LSTM', 2, shared + 4 * (first + last) + attention + 2 * 512)):
        net = model.ImageCaptionModel({**config, 'cellType': cell, 'num_rnn_layers': layers})
        assert sum(p.numel() for p in net.parameters()) == expected


@pytest.mark.parametrize('module, cell, layers', [MODELS[0], ('cocoSource_task2_gru', 'GRU', 2),
                                                  ('cocoSource_task3_lstm', 'LSTM', 2),
                                                  ('cocoSource_task4_attention', 'LSTM', 2)])
def test_one_batch_is_learned_by_heart_from_log_V(module, cell, layers):
    net, features, tokens = build(module, cell, layers, hidden=64)
    tokens[:, 0] = 1
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    losses = []
    for _ in range(200):
        logits, _ = net(features, tokens[:, :-1], True)
        _, mean_loss = cocoSource_xcnnfused.loss_fn(logits, tokens[:, 1:], torch.ones(B, T - 1))
        optimizer.zero_grad()
        mean_loss.backward()
        optimizer.step()
        losses.append(mean_loss.item())
    assert abs(losses[0] - math.log(V)) < 1
    assert losses[-1] < 0.05
    assert torch.equal(net(features, tokens, False)[0][:, :T - 1].argmax(2), tokens[:, 1:])


def test_loss_is_the_weighted_cross_entropy():
    logits = torch.randn(B, T, V, dtype=torch.float64, requires_grad=True)
    tokens, weights = torch.randint(0, V, (B, T)), torch.rand(B, T, dtype=torch.float64)
    weights[:, 4:] = 0
    sum_loss, mean_loss = cocoSource_xcnnfused.loss_fn(logits, tokens, weights)
    expected = sum(weights[b, t] * (logits[b, t].exp().sum().log() - logits[b, t, tokens[b, t]])
                   for b in range(B) for t in range(T))
    torch.testing.assert_close(sum_loss, expected)
    torch.testing.assert_close(mean_loss, expected / weights.sum())
    sum_loss.backward()
    assert not logits.grad[:, 4:].any() and logits.grad[:, :4].any()


@pytest.mark.parametrize('build_it, named', [
    (lambda: cocoSource_xcnnfused.ImageCaptionModel(config_for('GRU', 1)), 'GRU'),
    (lambda: cocoSource_xcnnfused.ImageCaptionModel(config_for('RNN', 2)), '2'),
    (lambda: cocoSource_task2_gru.RNN(E, H, 2, 'LSTM'), 'RNN, GRU'),
    (lambda: cocoSource_task3_lstm.RNN(E, H, 2, 'lstm'), 'RNN, GRU, LSTM'),
    (lambda: cocoSource_task2_gru.RNN(E, H, 0), '0'),
    (lambda: cocoSource_task4_attention.RNN(E, H, 1, H), '1'),
    (lambda: cocoSource_task4_attention.RNN(E, H, 2, H, 'GRU'), 'GRU'),
])
def test_impossible_models_are_named(build_it, named):
    with pytest.raises(ValueError, match=named):
        build_it()


@pytest.mark.parametrize('module, names', [
    ('cocoSource_xcnnfused', 'RNNOneLayerSimplified RNNsimpleCell'),
    ('cocoSource_task2_gru', 'RNN RNNsimpleCell GRUCell'),
    ('cocoSource_task3_lstm', 'RNN RNNsimpleCell GRUCell LSTMCell'),
    ('cocoSource_task4_attention', 'RNN LSTMCell')])
def test_each_file_offers_its_classes(module, names):
    for name in ['ImageCaptionModel', 'loss_fn', *names.split()]:
        assert hasattr(importlib.import_module(module), name)
