"""Beam search against a plain search for one image, and beside greedy in the validation."""
import copy
import functools

import pytest
import torch
from test_fast_paths import plain
from test_models import TASKS, V, build, needs_gpu
from test_training import read

from cocoSource_xcnnfused import loss_fn
from utils.data.captionDataset import Collate
from utils.data.captionWords import END, START, UNKNOWN
from utils.networks import decoding
from utils.networks.decoding import beamSearch, greedyTokens, sampledTokens
from utils.networks.selfCritical import upToEnd
from utils.validate_metrics import scoreTable, validateCaptions


@pytest.fixture(scope='module', params=[TASKS[0], TASKS[3]])
def learned(request):
    """A model that has half learned captions of 1 to 9 words; images' features; start tokens.

    In float64, so that no two captions are equally likely and the size of a batch does not matter.
    """
    net, features, _ = build(*request.param, batch=20, hidden=16)
    net, features = net.double(), features.double()
    captions = [[START, *torch.randint(1, V, (1 + number % 9,)).tolist(), END]
                for number in range(20)]
    batch = Collate(25).captionTensors(captions)
    x, y, weights = (batch[key][:, :, 0] for key in ('xTokens', 'yTokens', 'yWeights'))
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(30):
        optimizer.zero_grad()
        loss_fn(net(features, x, True)[0], y, weights)[0].backward()
        optimizer.step()
    return net.requires_grad_(False), features, torch.full((20,), START)


def with_end_bias(net, bias):
    """A copy of the network that ends whenever it can, or never."""
    net = copy.deepcopy(net)
    net.output_layer.bias[END] = bias
    return net


def best_of_beam(net, features, start, K):
    """The best of each image's K captions, which come in order of their log-probability per word.
    """
    captions, log_p = beamSearch(net, features, start, K)
    per_word = log_p / ((captions != END).sum(dim=2) + captions.eq(END).any(dim=2))
    assert (per_word[:, :-1] >= per_word[:, 1:]).all()
    return captions[:, 0]


def captions_of(tokens):
    """Lists of tokens up to the end token, which must fill the rest."""
    captions = [upToEnd(caption) for caption in tokens.tolist()]
    for caption, short in zip(tokens.tolist(), captions):
        assert not any(caption[len(short):])
    return captions


def plain_search(net, image, K):
    """Beam search for one image with lists of words, all computed anew at every step."""
    captions = [(0.0, [])]                                               # log-probability and words
    for _ in range(decoding.CAPTION_STEPS):
        longer = [caption for caption in captions if caption[1][-1:] == [END]]
        going = [caption for caption in captions if caption[1][-1:] != [END]]
        if not going:
            break
        tokens = torch.tensor([[START, *words] for _, words in going])
        logits, _ = net(image.expand(len(tokens), *image.shape), tokens, True)
        gains = logits[:, -1].log_softmax(dim=1).tolist()
        for (log_p, words), gains_of_caption in zip(going, gains):
            longer += [(log_p + gain, words + [word]) for word, gain in enumerate(gains_of_caption)
                       if words or word != END]
        captions = sorted(longer, key=lambda caption: -caption[0] / len(caption[1]))[:K]
    return captions[0][1]


def test_a_beam_of_one_is_greedy(learned):
    net, features, start = learned
    greedy = greedyTokens(net, features, start)
    assert torch.equal(best_of_beam(net, features, start, 1), greedy)
    assert len(set(map(len, captions_of(greedy)))) > 2
    net = with_end_bias(net, 1000.0)
    for tokens in (best_of_beam(net, features, start, 1), greedyTokens(net, features, start)):
        assert tokens.tolist() == [[END]] * len(features)


@pytest.mark.parametrize('K', [2, 5])
def test_every_caption_is_that_of_a_plain_search(K, learned):
    """Whatever the others of the batch do, whose captions end at other steps."""
    net, features, start = learned
    captions = captions_of(best_of_beam(net, features, start, K))
    assert captions == [plain_search(net, image, K) for image in features]
    assert captions != captions_of(greedyTokens(net, features, start))
    assert len(set(map(len, captions))) > 2


def test_never_empty_and_never_without_an_answer(learned):
    """A network that always ends makes captions of one word, one that never ends of forty."""
    net, features, start = learned
    tokens = best_of_beam(with_end_bias(net, 1000.0), features, start, 3)
    assert tokens.shape == (len(features), 2) and tokens[:, 0].all() and not tokens[:, 1].any()
    tokens = best_of_beam(with_end_bias(net, -1000.0), features, start, 3)
    assert tokens.shape == (len(features), 40) and tokens.all()


def test_images_whose_captions_have_ended_are_computed_no_more(learned):
    net, features, start = learned
    computed = []
    hook = net.output_layer.register_forward_hook(
        lambda layer, hidden, logits: computed.append(len(logits)))
    steps = best_of_beam(net, features, start, 3).shape[1]
    hook.remove()
    assert len(computed) == steps and computed == sorted(computed, reverse=True)
    assert computed[0] == 3 * len(features) >= 2 * computed[-1]


def test_checks_every_eight_steps_find_the_same(learned, monkeypatch):
    """As on a GPU, where each check is a wait."""
    net, features, start = learned
    ways = [functools.partial(greedyTokens, net, features, start),
            lambda: best_of_beam(net, features, start, 3),
            lambda: sampledTokens(with_end_bias(net, -1000), features, start, 1)[:, 0]]
    results = []
    for steps in (1, 8):
        monkeypatch.setitem(decoding.STEPS_BETWEEN_CHECKS, 'cpu', steps)
        torch.manual_seed(1)
        results.append([way() for way in ways])
    for found, expected in zip(*reversed(results)):
        longer = found.shape[1] - expected.shape[1]
        assert found.shape[1] % 8 == 0 and 0 <= longer < 8
        assert torch.equal(found, torch.nn.functional.pad(expected, (0, longer)))


@needs_gpu
def test_the_gpu_finds_what_the_cpu_finds(learned):
    net, features, start = learned
    expected = best_of_beam(net, features, start, 3)
    tokens = best_of_beam(copy.deepcopy(net).cuda(), features.cuda(), start.cuda(), 3)
    assert tokens.is_cuda and torch.equal(tokens.cpu(), expected)


@pytest.mark.usefixtures('without_java')
def test_validation_reports_the_beam_beside_greedy(new_trainer):
    """With the network's methods, and without them as in another student's file."""
    trainer = new_trainer()
    model, others = trainer.model, (trainer.modelParam, trainer.config, trainer.dataLoader)
    model.net.output_layer.bias.data[END] += 9                           # greedy captions are empty
    scores = validateCaptions(model, *others, 2)
    names = ['bleu_1', 'bleu_2', 'bleu_3', 'bleu_4', 'meteor', 'cider', 'rouge', 'meteor_tokens']
    assert list(scores) == ['loss', *names, *(f'beam_{name}' for name in names)]
    greedy, beam = (read(trainer, f'captions_validation{kind}.json') for kind in ('', '_beam2'))
    for results in (greedy, beam):
        assert [result['image_id'] for result in results] == list(range(10, 15))
    assert {result['caption'] for result in greedy} == {''}
    assert all(result['caption'] for result in beam)
    assert scores['meteor_tokens'] == scores['bleu_1'] == 0 < scores['beam_bleu_1']
    assert scores['beam_meteor_tokens'] > 0
    table = [line.split() for line in scoreTable(scores, 2).splitlines()]
    assert table[0] == ['greedy', 'beam', 'of', '2']
    assert table[1] == ['loss', f"{scores['loss']:.4f}"]
    assert table[6] == ['meteor', '0.0000', f"{scores['beam_meteor']:.4f}"] and len(table) == 10

    model.net = plain(model.net)
    assert validateCaptions(model, *others, 2) == pytest.approx(scores, abs=1e-5)
    alone = validateCaptions(model, *others)
    assert scoreTable(alone, 1).splitlines()[5].split() == ['meteor', '0.0000']


def repeats(words, may_repeat):
    """Whether a caption says a word twice that may not be repeated, or three words in a row."""
    single = [word for word in words if not may_repeat[word]]
    threes = list(zip(words, words[1:], words[2:]))
    return len(set(single)) < len(single) or len(set(threes)) < len(threes)


def test_words_that_do_not_repeat(learned):
    """With one caption kept, what does not repeat anyway is said as before."""
    net, features, start = learned
    net = with_end_bias(net, -3)
    may_repeat = torch.arange(V) < 6
    for beam_size in (1, 3):
        before, after = (beamSearch(net, features, start, beam_size, rule)[0].flatten(0, 1)
                         for rule in (None, may_repeat))
        before, after = (list(map(upToEnd, captions.tolist())) for captions in (before, after))
        assert not any(repeats(words, may_repeat) or UNKNOWN in words for words in after)
        assert any(repeats(words, may_repeat) for words in before)
        if beam_size == 1:
            kept = [other == words for words, other in zip(before, after)
                    if not repeats(words, may_repeat) and UNKNOWN not in words]
            assert all(kept)
