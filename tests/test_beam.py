"""Beam search against all captions there are, against a plain search for one image, and beside greedy in the validation."""
import copy
import importlib
import itertools
import os

import pytest
import torch
from test_fast_paths import plain
from test_models import D, config_for

import cocoSource_task2_gru
import cocoSource_xcnnfused
from utils.data.captionDataset import Collate
from utils.dataLoader import DataLoaderWrapper
from utils.files.atomic import readJson
from utils.files.project import runFolder
from utils.model import Model
from utils.networks import decoding
from utils.networks.decoding import beamSearch, greedyTokens
from utils.validate_metrics import scoreTable, validateCaptions

END, START, V = 0, 1, 23
TASKS = [('cocoSource_xcnnfused', 'RNN', 1), ('cocoSource_task2_gru', 'GRU', 2), ('cocoSource_task3_lstm', 'LSTM', 2),
         ('cocoSource_task4_attention', 'LSTM', 2)]
every_task = pytest.mark.parametrize('module, cell, layers', TASKS, ids=[module for module, _, _ in TASKS])


def half_learned(module, cell, layers, vocabulary_size, longest, B):
    """A model that has half learned captions of 1 to `longest` words, one for each of B images; features; start tokens.

    In float64, so that no two captions are equally likely and the size of a batch does not matter.
    """
    torch.manual_seed(1)
    net = importlib.import_module(module).ImageCaptionModel({**config_for(cell, layers), 'vocabulary_size': vocabulary_size,
                                                                'hidden_state_sizes': 16})
    net.eval().double()
    features = torch.rand((B, 10, D) if 'attention' in module else (B, D), dtype=torch.float64)
    captions = [[START] + torch.randint(1, vocabulary_size, (1 + number % longest,)).tolist() + [END] for number in range(B)]
    batch = Collate(longest + 1).captionTensors(captions)
    x, y, weights = (batch[key][:, :, 0] for key in ('xTokens', 'yTokens', 'yWeights'))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        net(features, x, True)[0].log_softmax(dim=2).gather(2, y.unsqueeze(2)).squeeze(2).mul(-weights).sum().backward()
        optimizer.step()
    return net.requires_grad_(False), features, torch.full((B,), START)


@pytest.fixture(scope='module', params=TASKS, ids=[module for module, _, _ in TASKS])
def learned(request):
    return half_learned(*request.param, V, longest=9, B=20)


def with_end_bias(net, bias):
    """A copy of the network that ends whenever it can, or never."""
    net = copy.deepcopy(net)
    net.output_layer.bias[END] = bias
    return net


def best_of_beam(net, features, start, K):
    """The best of each image's K captions, which come in order of their log-probability per word."""
    captions, log_p = beamSearch(net, features, start, K)
    per_word = log_p / ((captions != END).sum(dim=2) + captions.eq(END).any(dim=2))
    assert (per_word[:, :-1] >= per_word[:, 1:]).all()
    return captions[:, 0]


def until_end(tokens):
    return tokens[:tokens.index(END) + 1] if END in tokens else tokens


def captions_of(tokens):
    """Lists of tokens up to the end token, which must fill the rest."""
    captions = [until_end(caption) for caption in tokens.tolist()]
    assert all(not any(caption[len(short):]) for caption, short in zip(tokens.tolist(), captions))
    return captions


def log_p_of_words(net, image, captions):
    """The log-probability [N, T] of each word of N captions of one image, teacher-forced through `forward`."""
    said = torch.tensor(captions)
    given = torch.cat([torch.full_like(said[:, :1], START), said[:, :-1]], dim=1)
    log_p = net(image.expand(len(said), *image.shape), given, True)[0].log_softmax(dim=2)  # [N, T, V]
    return log_p.gather(2, said.unsqueeze(2)).squeeze(2)


def per_word(net, image, caption):
    """The log-probability per word of a caption, its end counted as one."""
    return float(log_p_of_words(net, image, [caption]).mean())


def plain_search(net, image, K):
    """Beam search for one image with lists of words, all computed anew from the first word at every step."""
    captions = [(0.0, [])]                                                       # log-probability and words
    for _ in range(cocoSource_xcnnfused.CAPTION_STEPS):
        longer = [caption for caption in captions if caption[1][-1:] == [END]]
        going = [caption for caption in captions if caption[1][-1:] != [END]]
        if not going:
            break
        given = torch.tensor([[START] + words for _, words in going])
        of_next = net(image.expand(len(given), *image.shape), given, True)[0][:, -1].log_softmax(dim=1).tolist()
        longer += [(log_p + gain, words + [word]) for (log_p, words), gains in zip(going, of_next)
                   for word, gain in enumerate(gains) if words or word != END]
        captions = sorted(longer, key=lambda caption: caption[0] / len(caption[1]), reverse=True)[:K]
    return captions[0][1]


def test_a_beam_of_one_is_greedy(learned):
    net, features, start = learned
    greedy = greedyTokens(net, features, start)
    assert torch.equal(best_of_beam(net, features, start, 1), greedy) and len(set(map(len, captions_of(greedy)))) > 2
    assert best_of_beam(with_end_bias(net, 1000.0), features, start, 1).tolist() == [[END]] * len(features)
    with pytest.raises(ValueError, match='beam_size is 0'):
        best_of_beam(net, features, start, 0)


@every_task
def test_a_beam_as_wide_as_there_are_captions_finds_the_best(module, cell, layers, monkeypatch):
    monkeypatch.setattr(decoding, 'CAPTION_STEPS', 4)
    net, features, start = half_learned(module, cell, layers, 5, longest=3, B=7)
    everything = [tokens for tokens in itertools.product(range(5), repeat=4) if tokens[0] != END]
    lengths = torch.tensor([len(until_end(tokens)) for tokens in everything])
    best = []
    for image in features:
        sums = log_p_of_words(net, image, everything).cumsum(dim=1)              # [N, 4]
        likeliest = (sums.gather(1, lengths.unsqueeze(1) - 1).squeeze(1) / lengths).argmax()
        best.append(list(until_end(everything[likeliest])))
    assert captions_of(best_of_beam(net, features, start, 5 ** 4)) == best
    assert len(set(map(len, best))) > 1


@pytest.mark.parametrize('K', [2, 3, 30])
def test_every_caption_is_that_of_a_plain_search(K, learned):
    """Whatever the others of the batch do, whose captions end at other steps."""
    net, features, start = learned
    captions = captions_of(best_of_beam(net, features, start, K))
    assert captions == [plain_search(net, image, K) for image in features]
    assert captions != captions_of(greedyTokens(net, features, start)) and len(set(map(len, captions))) > 2


def test_a_batch_is_its_images_one_at_a_time_and_the_same_again(learned):
    net, features, start = learned
    captions = captions_of(best_of_beam(net, features, start, 3))
    assert captions == captions_of(best_of_beam(net, features, start, 3))
    assert captions == [captions_of(best_of_beam(net, image.unsqueeze(0), start[:1], 3))[0] for image in features]


def test_a_beam_is_more_likely_than_greedy_on_average(learned):
    """Not for every image: the captions that greedy's grows from may have to leave for others, which then go on worse."""
    net, features, start = learned
    beam, greedy = ([per_word(net, image, caption) for image, caption in zip(features, captions_of(tokens))]
                    for tokens in (best_of_beam(net, features, start, 3), greedyTokens(net, features, start)))
    assert sum(beam) > sum(greedy)


def test_never_empty_and_never_without_an_answer(learned):
    """A network that always ends says one word and is left at that; one that never ends says forty."""
    net, features, start = learned
    tokens = best_of_beam(with_end_bias(net, 1000.0), features, start, 3)
    assert tokens.shape == (len(features), 2) and tokens[:, 0].all() and not tokens[:, 1].any()
    tokens = best_of_beam(with_end_bias(net, -1000.0), features, start, 3)
    assert tokens.shape == (len(features), 40) and tokens.all()


def test_images_that_have_their_caption_are_computed_no_more(learned):
    net, features, start = learned
    computed = []
    hook = net.output_layer.register_forward_hook(lambda layer, seen, said: computed.append(len(said)))
    steps = best_of_beam(net, features, start, 3).shape[1]
    hook.remove()
    assert len(computed) == steps and computed == sorted(computed, reverse=True)
    assert computed[0] == 3 * len(features) >= 2 * computed[-1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_the_gpu_says_what_the_cpu_says(learned):
    net, features, start = learned
    expected = best_of_beam(net, features, start, 3)
    tokens = best_of_beam(copy.deepcopy(net).cuda(), features.cuda(), start.cuda(), 3)
    assert tokens.is_cuda and torch.equal(tokens.cpu(), expected)


@pytest.mark.usefixtures('shared_meteor')
def test_validation_reports_the_beam_beside_greedy(course_folder, config, model_param):
    """With the network's methods, and without them as in another student's file."""
    course_folder()
    loader = DataLoaderWrapper(config, model_param)
    model = Model(loader.config, model_param, cocoSource_task2_gru.ImageCaptionModel)
    with torch.no_grad():
        model.net.output_layer.bias[END] += 9                                    # greedy says nothing
    scores = validateCaptions(model, model_param, {**config, 'beamSize': 2}, loader)
    names = ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'meteor', 'cider', 'rouge', 'meteor_tokens']
    assert list(scores) == ['loss', *names, *(f'beam_{name}' for name in names)]
    greedy, beam = (readJson(os.path.join(runFolder(model_param), f'captions_validation{kind}.json'), None)
                    for kind in ('', '_beam2'))
    assert [result['image_id'] for result in greedy] == [result['image_id'] for result in beam] == list(range(10, 15))
    assert {result['caption'] for result in greedy} == {''} and all(result['caption'] for result in beam)
    assert scores['meteor'] == scores['bleu_1'] == 0 < scores['beam_bleu_1']
    table = scoreTable(scores, {'beamSize': 2}).splitlines()
    assert table[0].split() == ['greedy', 'beam', 'of', '2'] and table[1].split() == ['loss', f"{scores['loss']:.4f}"]
    assert table[6].split() == ['meteor', '0.0000', f"{scores['beam_meteor']:.4f}"] and len(table) == 10

    model.net = plain(model.net)
    assert validateCaptions(model, model_param, {**config, 'beamSize': 2}, loader) == pytest.approx(scores, abs=1e-5)
    alone = validateCaptions(model, model_param, {**config, 'beamSize': 1}, loader)
    assert scoreTable(alone, {'beamSize': 1}).splitlines()[5] == 'meteor        0.0000'
