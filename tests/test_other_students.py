"""Networks as other students write them: `input_layer`, one step after the other, `.view` in the loss, no method but `forward`.

They train, go on after a kill, are validated, greedily and by beam, and their checkpoints are read.
"""
import os

import pytest
import torch
from test_training import build, checkpoints, read, weights
from torch import nn

from utils.dataLoader import DataLoaderWrapper
from utils.model import Model
from utils.saverRestorer import SaverRestorer, loadForValidation
from utils.validate_metrics import validateCaptions

pytestmark = pytest.mark.usefixtures('shared_meteor')


def loss_fn(logits, yTokens, yWeights):
    losses = nn.functional.cross_entropy(logits.view(-1, logits.size(2)), yTokens.view(-1), reduction='none')
    losses = losses.view(yTokens.size()) * yWeights
    return losses.sum(), losses.sum() / (yWeights.sum() + 1e-7)


class SimpleCell(nn.Module):
    k = 1

    def __init__(self, H, D):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(D + H, H) / (D + H) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(1, H))

    def forward(self, x, state):
        return torch.tanh(torch.cat((x, state), dim=1).mm(self.weight) + self.bias)


class GRU(nn.Module):
    """Of one weight for each gate, the state's rows first."""
    k = 1

    def __init__(self, H, D):
        super().__init__()
        for gate in ('_u', '_r', ''):
            setattr(self, 'weight' + gate, nn.Parameter(torch.randn(D + H, H) / (D + H) ** 0.5))
            setattr(self, 'bias' + gate, nn.Parameter(torch.zeros(1, H)))

    def forward(self, x, state):
        both = torch.cat((state, x), dim=1)
        u = torch.sigmoid(both.mm(self.weight_u) + self.bias_u)
        r = torch.sigmoid(both.mm(self.weight_r) + self.bias_r)
        return u * state + (1 - u) * torch.tanh(torch.cat((r * state, x), dim=1).mm(self.weight) + self.bias)


class LSTM(nn.Module):
    k = 2

    def __init__(self, H, D):
        super().__init__()
        self.H = H
        for gate in ('_f', '_i', '_o', ''):
            setattr(self, 'weight' + gate, nn.Parameter(torch.randn(D + H, H) / (D + H) ** 0.5))
            setattr(self, 'bias' + gate, nn.Parameter(torch.zeros(1, H)))

    def forward(self, x, state):
        both = torch.cat((x, state[:, :self.H]), dim=1)
        f, i, o = (torch.sigmoid(both.mm(getattr(self, 'weight' + gate)) + getattr(self, 'bias' + gate))
                   for gate in ('_f', '_i', '_o'))
        memory = f * state[:, self.H:] + i * torch.tanh(both.mm(self.weight) + self.bias)
        return torch.cat((o * torch.tanh(memory), memory), dim=1)


CELLS = {'RNN': SimpleCell, 'GRU': GRU, 'LSTM': LSTM}


class RNN(nn.Module):
    image_first, attends = False, False

    def __init__(self, E, M, H, L, cell_type):
        super().__init__()
        self.H = H
        sizes = [E + M] + [H] * (L - 1)
        if self.attends:
            sizes[-1] = H + M
            self.attention_layer = nn.Sequential(nn.Dropout(0.25), nn.Linear(2 * H, 50), nn.LeakyReLU(), nn.Linear(50, 10),
                                                 nn.Softmax(dim=1))
        self.cells = nn.ModuleList(CELLS[cell_type](H, size) for size in sizes)

    def forward(self, tokens, features, hidden_state, output_layer, embedding_layer, is_train=True):
        steps = tokens.shape[1] if is_train else 40
        words = embedding_layer(tokens)
        word, state, logits = words[:, 0], list(hidden_state), []
        for step in range(steps):
            image = features.max(dim=2).values if self.attends else features
            x = torch.cat((image, word) if self.image_first else (word, image), dim=1)
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


class ImageFirst(RNN):
    image_first = True


class Attending(RNN):
    attends = True


class ImageCaptionModel(nn.Module):
    rnn_class = RNN

    def __init__(self, config):
        super().__init__()
        H, E = config['hidden_state_sizes'], config['embedding_size']
        self.config = config
        self.embedding_layer = nn.Embedding(config['vocabulary_size'], E)
        self.output_layer = nn.Linear(H, config['vocabulary_size'])
        self.input_layer = self.input_layers(config['number_of_cnn_features'])
        self.rnn = self.rnn_class(E, 512, H, config['num_rnn_layers'], config['cellType'])

    def input_layers(self, D):
        return nn.Sequential(nn.Dropout(0.25), nn.Linear(D, 512), nn.LeakyReLU())

    def process(self, cnn_features):
        return self.input_layer(cnn_features)

    def forward(self, cnn_features, xTokens, is_train, current_hidden_state=None):
        if current_hidden_state is None:
            shape = self.config['num_rnn_layers'], len(cnn_features), self.config['hidden_state_sizes'] * self.rnn.cells[0].k
            current_hidden_state = torch.zeros(shape, device=cnn_features.device)
        return self.rnn(xTokens, self.process(cnn_features), current_hidden_state, self.output_layer, self.embedding_layer,
                        is_train)


class ImageFirstModel(ImageCaptionModel):
    rnn_class = ImageFirst


class AttentionModel(ImageCaptionModel):
    rnn_class = Attending

    def input_layers(self, D):
        return nn.Sequential(nn.Dropout(0.25), nn.Conv2d(D, 512, 1), nn.Flatten(2), nn.BatchNorm1d(512), nn.LeakyReLU())

    def process(self, cnn_features):
        return self.input_layer(cnn_features.transpose(1, 2).unsqueeze(3))


TEN = {'featurepathstub': 'detectron2_lim10features'}
KINDS = {'simple': (ImageCaptionModel, {'cellType': 'RNN', 'num_rnn_layers': 1}),
         'simple, two layers': (ImageCaptionModel, {'cellType': 'RNN', 'num_rnn_layers': 2}),
         'GRU, state first': (ImageCaptionModel, {'cellType': 'GRU'}), 'LSTM': (ImageCaptionModel, {'cellType': 'LSTM'}),
         'LSTM, image first': (ImageFirstModel, {'cellType': 'LSTM'}), 'attention': (AttentionModel, {'cellType': 'LSTM', **TEN})}


@pytest.mark.parametrize('recipe', ['assignment', 'regularised'])
@pytest.mark.parametrize('kind', KINDS)
def test_trained_killed_resumed_and_validated(kind, recipe, course_folder, config, model_param):
    """With a caption of more than 25 words among those learned: it comes in parts."""
    model, changes = KINDS[kind]
    course_folder(n_train=24)
    config = {**config, **changes, 'learningRecipe': recipe}
    del config['seed']                                                           # which the hand-out's does not have
    whole = build(config, model_param, model)
    parts, forward = [], whole.model.lossOfParts
    whole.lossOfParts = lambda batch: parts.append(batch['numbOfTruncatedSequences']) or forward(batch)
    whole.train()
    assert max(parts) > 1
    assert whole.model.history[-1]['train_loss'] < whole.model.history[0]['train_loss']

    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    begun = build(config, param, model)
    begun.modelParam = {**param, 'numbOfEpochs': 1}
    begun.train()
    resumed = build(config, param, model)
    assert resumed.model.start_epoch == 1
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole)) and read(param, 'history.json') == read(model_param, 'history.json')

    param = {**model_param, 'inference': True, 'modeSetups': [['val', False]]}
    saved = loadForValidation(param)
    loader = DataLoaderWrapper({**saved['config'], 'beamSize': 2}, param)
    validated = SaverRestorer(loader.config, param).restore(Model(loader.config, param, model))
    scores = validateCaptions(validated, param, loader.config, loader)
    assert scores['meteor'] == saved['history'][saved['epoch'] - 1]['meteor'] and 0 <= scores['beam_meteor'] <= 1
    details = read(param, 'details_validation.json')
    for image in details:
        assert ('attention' in image) == (kind == 'attention')
        assert len(image.get('attention', image['caption'].split())) == len(image['caption'].split())

    critical = build({**config, 'selfCriticalEpochs': 1}, {**model_param, 'restoreModelLast': 1}, model)
    critical.train()
    assert critical.model.history[-1]['reward'] > 0 and not torch.equal(weights(critical), weights(whole))


@pytest.mark.parametrize('kind', KINDS)
def test_a_checkpoint_of_their_own_trainer_is_validated_and_trained_on(kind, course_folder, config, model_param):
    """Epochs counted from 0, and nothing beside weights and optimizer."""
    model, changes = KINDS[kind]
    course_folder()
    config = {**config, **changes}
    theirs = build(config, model_param, model).model
    os.makedirs(os.path.join(model_param['modelsDir'], 'm'), exist_ok=True)
    torch.save({'epoch': 6, 'model_state_dict': theirs.net.state_dict(), 'optimizer_state_dict': theirs.optimizer.state_dict(),
                'loss': 0.5}, os.path.join(model_param['modelsDir'], 'm', 'best_epoch6.pt'))
    param = {**model_param, 'inference': True, 'modeSetups': [['val', False]]}
    saved = loadForValidation(param)['config']
    for key in ('featurepathstub', 'num_rnn_layers', 'cellType', 'hidden_state_sizes', 'number_of_cnn_features'):
        assert saved[key] == config[key]
    loader = DataLoaderWrapper(saved, param)
    validated = SaverRestorer(loader.config, param).restore(Model(loader.config, param, model))
    assert validated.start_epoch == 7
    for name, weight in theirs.net.state_dict().items():
        assert torch.equal(weight, validated.net.state_dict()[name])
    build(config, {**model_param, 'restoreModelBest': 1, 'numbOfEpochs': 8}, model).train()  # 7 are done
    assert 'last_epoch8.pt' in checkpoints(model_param)
