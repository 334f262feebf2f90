"""Networks as other students write them: `input_layer`, step by step, `.view` in the loss.

They train, go on where they were left, and are validated, greedily and by beam; their checkpoints
are read.
"""
import functools
import importlib.util
import os
from unittest import mock

import pytest
import torch
from test_training import check_resumed, checkpoints, fileOf, weights
from torch import nn

from cocoSource_task2_gru import RNN as GruLayers
from cocoSource_task2_gru import GRUCell
from cocoSource_task2_gru import ImageCaptionModel as GruModel
from cocoSource_task4_attention import ImageCaptionModel as AttentionLstm
from utils.files.errors import UserError
from utils.files.ownFiles import PROJECT
from utils.model import Model
from utils.saverRestorer import SaverRestorer, loadForValidation
from utils.trainer import Trainer
from utils.validate import restoredModel
from utils.validate_metrics import validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')


def loss_fn(logits, yTokens, yWeights):
    logits, tokens = logits.view(-1, logits.size(2)), yTokens.view(-1)
    losses = nn.functional.cross_entropy(logits, tokens, reduction='none')
    losses = losses.view(yTokens.size()) * yWeights
    return losses.sum(), losses.sum() / (yWeights.sum() + 1e-7)


GATES = '_f', '_i', '_o', ''


class LSTM(nn.Module):
    def __init__(self, H, D):
        super().__init__()
        self.H = H
        for gate in GATES:
            setattr(self, 'weight' + gate, nn.Parameter(torch.randn(D + H, H) / (D + H) ** 0.5))
            setattr(self, 'bias' + gate, nn.Parameter(torch.zeros(1, H)))

    def forward(self, x, state):
        both = torch.cat((x, state[:, :self.H]), dim=1)
        f, i, o, new = (both.mm(getattr(self, 'weight' + gate)) + getattr(self, 'bias' + gate)
                        for gate in GATES)
        memory = f.sigmoid() * state[:, self.H:] + i.sigmoid() * new.tanh()
        return torch.cat((o.sigmoid() * memory.tanh(), memory), dim=1)


class RNN(nn.Module):
    """The image's rows before the words'."""

    def __init__(self, E, M, H, L, attends):
        super().__init__()
        self.attends = attends
        self.H = H
        sizes = [E + M] + [H] * (L - 1)
        if self.attends:
            sizes[-1] = H + M
            self.attention_layer = nn.Sequential(
                nn.Dropout(0.25), nn.Linear(2 * H, 50), nn.LeakyReLU(), nn.Linear(50, 10),
                nn.Softmax(dim=1))
        self.cells = nn.ModuleList(LSTM(H, size) for size in sizes)

    def forward(self, tokens, features, hidden_state, output_layer, embedding_layer, is_train=True):
        steps = tokens.shape[1] if is_train else 40
        words = embedding_layer(tokens)
        word, state, logits = words[:, 0], list(hidden_state), []
        for step in range(steps):
            image = features.max(dim=2).values if self.attends else features
            x = torch.cat((image, word), dim=1)
            for layer, cell in enumerate(self.cells):
                if self.attends and layer == len(self.cells) - 1:
                    attention = self.attention_layer(state[layer - 1].clone())
                    x = torch.cat((x, (features * attention.unsqueeze(1)).sum(2)), dim=1)
                state[layer] = cell(x, state[layer])
                x = state[layer][:, :self.H]
            logits.append(output_layer(x))
            if step < steps - 1:
                word = words[:, step + 1] if is_train else embedding_layer(logits[-1].argmax(dim=1))
        return torch.stack(logits, dim=1), torch.stack(state)


class ImageCaptionModel(nn.Module):
    attends = False

    def __init__(self, config):
        super().__init__()
        H, E, D = (config[key] for key in ('hidden_state_sizes', 'embedding_size',
                                           'number_of_cnn_features'))
        self.config = config
        self.embedding_layer = nn.Embedding(config['vocabulary_size'], E)
        self.output_layer = nn.Linear(H, config['vocabulary_size'])
        self.input_layer = nn.Sequential(nn.Dropout(0.25), nn.Linear(D, 512), nn.LeakyReLU())
        if self.attends:
            self.input_layer = nn.Sequential(nn.Dropout(0.25), nn.Conv2d(D, 512, 1), nn.Flatten(2),
                                             nn.BatchNorm1d(512), nn.LeakyReLU())
        self.rnn = RNN(E, 512, H, config['num_rnn_layers'], self.attends)

    def forward(self, cnn_features, xTokens, is_train, current_hidden_state=None):
        if current_hidden_state is None:
            shape = self.config['num_rnn_layers'], len(cnn_features), 2 * self.rnn.H
            current_hidden_state = torch.zeros(shape)
        if self.attends:
            cnn_features = cnn_features.transpose(1, 2).unsqueeze(3)
        return self.rnn(xTokens, self.input_layer(cnn_features), current_hidden_state,
                        self.output_layer, self.embedding_layer, is_train)


class AttentionModel(ImageCaptionModel):
    attends = True


@pytest.mark.parametrize('model, changes', [
    (ImageCaptionModel, {'learningRecipe': 'regularised'}),
    (AttentionModel, {'featurepathstub': 'detectron2_lim10features'})])
def test_trained_left_resumed_and_validated(model, changes, new_trainer, validation_param):
    """With captions that come in parts."""
    settings = {'cellType': 'LSTM', 'truncated_backprop_length': 4, **changes}
    make = functools.partial(new_trainer, model, wordy=True, **settings)
    whole = check_resumed(make)
    assert whole.model.history[-1]['val_loss'] < whole.model.history[0]['val_loss']

    saved = loadForValidation(validation_param)
    validated, loader = restoredModel(validation_param, model)
    scores = validateCaptions(validated, validation_param, loader.config, loader, beamSize=2)
    assert scores['meteor'] == saved['history'][saved['epoch'] - 1]['meteor'] > 0
    assert scores['beam_meteor'] > 0

    critical = make(restoreModelLast=1, selfCriticalEpochs=1)
    critical.train()
    assert critical.model.history[-1]['reward'] > 0
    assert not torch.equal(weights(critical), weights(whole))


@pytest.mark.parametrize('path', ['', 'rnn'])
def test_a_forward_of_ones_own_is_called(path, new_trainer):
    trainer = new_trainer(AttentionLstm, wordy=True)
    model, batch = trainer.model, next(iter(trainer.dataLoader.myDataDicts['val']))
    part = model.net.get_submodule(path)
    ours, calls = type(part), []

    class Own(ours):
        def forward(self, *arguments, **options):
            calls.append(arguments)
            return super().forward(*arguments, **options)

    found = []
    for part.__class__ in ours, Own:
        found.append((trainer.run_epoch('val', model, False, 1), model.beamTokens(batch, 2)))
        assert bool(calls) == (part.__class__ is Own)
    assert found[0] == (pytest.approx(found[1][0]), found[1][1])
    assert model.attentionOver(batch, found[0][1]) is None


class OwnCell(GRUCell):
    def forward(self, x, hidden_state):
        return x


def test_a_cell_whose_forward_is_not_called_is_named(new_trainer, monkeypatch, capsys):
    new_trainer()
    assert 'equations' not in capsys.readouterr().out
    monkeypatch.setitem(GruLayers.cell_types, 'GRU', OwnCell)
    new_trainer()
    assert 'OwnCell has a forward, but no equations of its own.' in capsys.readouterr().out


def test_a_file_that_is_loaded_by_its_path_is_no_module(new_trainer):
    path = os.path.join(PROJECT, 'cocoSource_task2_gru.py')
    spec = importlib.util.spec_from_file_location('theirs', path)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    assert new_trainer(theirs.ImageCaptionModel).model.loss_fn is not None


def test_the_courses_config_lacks_our_keys(new_trainer, config):
    trainer = new_trainer()
    config['vocabulary_size'] = trainer.config['vocabulary_size']
    model = Model(config, trainer.modelParam, GruModel)
    saver = SaverRestorer(config, trainer.modelParam)
    theirs = Trainer(model, trainer.modelParam, config, trainer.dataLoader, saver)
    for one in (theirs, trainer):
        one.plotter = mock.Mock()
        one.train()
    assert model.history == trainer.model.history


def test_a_network_that_was_built_before_the_data_were_read_is_validated(new_trainer, config,
                                                                         validation_param):
    """In the hand-out's order, with more words than the vocabulary has."""
    trainer = new_trainer(numbOfEpochs=1)
    trainer.model = Model(config, trainer.modelParam, GruModel)
    trainer.saveRestorer = SaverRestorer(config, trainer.modelParam)
    trainer.train()
    model, loader = restoredModel(validation_param, GruModel)
    assert model.net.vocabulary_size == 10000 > len(loader.vocabulary['TokenToWord'])
    scores = validateCaptions(model, validation_param, loader.config, loader)
    assert scores['loss'] == pytest.approx(trainer.model.history[0]['val_loss'])
    theirs = loadForValidation(validation_param)
    torch.save({key: theirs[key] for key in ('epoch', 'model_state_dict')}, theirs['path'])
    with pytest.raises(UserError, match='another vocabulary'):  # so many words may be of any data
        restoredModel(validation_param, GruModel)


@pytest.mark.parametrize('model, changes', [
    (AttentionModel, {'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features'}),
    (GruModel, {})])
def test_a_checkpoint_of_other_code_is_validated_and_trained_on(model, changes, new_trainer,
                                                                validation_param, capsys):
    """Epochs counted from 0, the hand-out's `input_layer`, nothing beside weights and optimizer."""
    make = functools.partial(new_trainer, model, **changes)
    trainer = make()
    theirs = trainer.model
    state = {name.replace('inputLayer', 'input_layer'): weight
             for name, weight in theirs.net.state_dict().items()}
    torch.save({'epoch': 6, 'model_state_dict': state, 'loss': 0.5,
                'optimizer_state_dict': theirs.optimizer.state_dict()},
               fileOf(trainer, 'best_epoch6.pt'))
    validated, loader = restoredModel(validation_param, model)
    assert loader.config.items() >= changes.items()
    assert validated.start_epoch == 7 and 'another order' in capsys.readouterr().out
    for name, weight in theirs.net.state_dict().items():
        assert torch.equal(weight, validated.net.state_dict()[name])
    make(restoreModelBest=1, numbOfEpochs=8).train()                  # 7 epochs are done
    assert 'last_epoch8.pt' in checkpoints(trainer)
