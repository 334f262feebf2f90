"""Self-critical training: its rewards against pycocoevalcap's and by hand, its gradient by hand, and how its runs go."""
import math
import os
import random
from unittest import mock

import numpy as np
import pytest
import torch
from conftest import CAPTIONS as TEXTS
from pycocoevalcap.cider.cider import Cider
from test_training import build, read, weights
from utils.data.survey import captionRewards

import cocoSource_task2_gru
import cocoSource_task4_attention
from utils.data.captionWords import END
from utils.dataLoader import DataLoaderWrapper
from utils.files.errors import UserError
from utils.networks import selfCritical
from utils.networks.captionRewards import LARGEST_VOCABULARY, METEOR_SHARE, CaptionRewards, checkVocabulary, learnedWords, ngrams
from utils.networks.decoding import sampledTokens
from utils.networks.selfCritical import CAPTIONS, LEARNING_RATE, upToEnd
from utils.trainer import Trainer

V = 60


def rewardsBy(images):
    """`CaptionRewards` by the captions of images, lists of lists of tokens."""
    codes, frequencies = np.unique(np.concatenate([np.unique(ngrams(captions, V)[1]) for captions in images]), return_counts=True)
    return CaptionRewards(codes, frequencies, len(images), V)


def caption(rng):
    return [min(V - 1, int(rng.paretovariate(0.4)) + 2) for _ in range(rng.randint(0, 14))] + [END]


def inWords(captions):
    return [' '.join(map(str, tokens)) for tokens in captions]


def test_equal_ngrams_have_one_number_and_others_another():
    rng = random.Random(1)
    captions = [caption(rng) for _ in range(50)]
    rows, codes, orders = ngrams(captions, V)
    expected = [(row, tuple(tokens[place:place + n])) for n in range(1, 5) for row, tokens in enumerate(captions)
                for place in range(len(tokens) - n + 1)]
    assert rows.tolist() == [row for row, _ in expected] and (orders + 1).tolist() == [len(ngram) for _, ngram in expected]
    assert len(set(codes.tolist())) == len({ngram for _, ngram in expected}) == len(
        {(code, ngram) for code, (_, ngram) in zip(codes.tolist(), expected)})
    largest = ngrams([[LARGEST_VOCABULARY] * 4], LARGEST_VOCABULARY)[1].tolist()
    assert min(largest) > 0 and max(largest) == sum((LARGEST_VOCABULARY + 1) * (LARGEST_VOCABULARY + 2) ** n for n in range(4))


def test_cider_is_pycocoevalcaps():
    rng = random.Random(2)
    images = [[caption(rng) for _ in range(rng.randint(1, 6))] for _ in range(80)]
    said = [[[token for token in rng.choice(of_image) if token == END or rng.random() < 0.8] if rng.random() < 0.8 else caption(rng)
             for _ in range(3)] for of_image in images]
    cider, _ = rewardsBy(images).scores(said, images)
    assert cider.shape == (80, 3) and cider.max() > 1
    references = dict(enumerate(map(inWords, images)))
    for sample in range(3):
        _, expected = Cider().compute_score(references, {image: inWords([of_image[sample]]) for image, of_image in enumerate(said)})
        assert np.abs(cider[:, sample] - expected).max() < 1e-9


def test_ngrams_that_no_training_image_has_are_as_rare_as_those_of_one():
    images = [[[3, 4, 5, END]], [[6, 7, END]]]
    rewards = rewardsBy(images)
    cider, _ = rewards.scores([[[8, 9, END]]], [[[8, 9, END]]])
    values = np.array([2 * math.log(2) ** 2, 2 * math.log(2) ** 2, math.log(2) ** 2])  # END alone is in all
    assert np.allclose(cider, 10 * (values > 0).sum() / 4)                       # no n-grams of four words, so that these are 0


def test_meteor_by_hand():
    rewards = rewardsBy([[[3, 4, 5, 6, END]], [[9, END]]])
    said = [[[3, 4, 7, END], [4, 3, END], [7, END], [3, 4, 5, 6, END]]]

    def meteor(matches, words, chunks):
        precision, recall = matches / words, matches / 4
        return precision * recall / (0.85 * precision + 0.15 * recall) * (1 - 0.6 * (chunks / matches) ** 0.2)

    _, scores = rewards.scores(said, [[[3, 4, 5, 6, END]]])
    assert np.allclose(scores, [[meteor(2, 3, 1), meteor(2, 2, 2), 0, meteor(4, 4, 1)]])
    _, best = rewards.scores(said, [[[9, END], [3, 4, 5, 6, END], [8, 7, END]]])  # the best of the human captions counts
    assert np.allclose(best[0, [1, 3]], scores[0, [1, 3]])
    assert math.isclose(best[0, 2], 0.5 / (0.85 + 0.15 * 0.5) * 0.4)
    assert np.allclose(rewards(said, [[[9, END]]]), sum(part * share for part, share in zip(
        rewards.scores(said, [[[9, END]]]), (1, METEOR_SHARE))))


def test_rewards_by_the_data_folder_are_those_of_its_captions(course_folder, config, model_param):
    course_folder(n_train=12)
    loader = DataLoaderWrapper({**config, 'vocabulary_size': 9}, model_param)    # so that some words are unknown
    dataset = loader.myDataDicts['train'].dataset
    images = [learnedWords(dataset, dataset.load(index)['captionsAsTokens']) for index in range(12)]
    assert 9 in sum(sum(images, []), []) and 2 not in sum(sum(images, []), [])
    codes, frequencies = np.unique(np.concatenate([np.unique(ngrams(captions, 9)[1]) for captions in images]), return_counts=True)
    for workers in (0, 2):
        rewards = captionRewards(dataset, {**model_param, 'numbOfCPUThreadsUsed': workers, 'batch_size': 5})
        assert np.array_equal(rewards.codes, codes) and np.array_equal(rewards.frequencies, frequencies)
        assert (rewards.images, rewards.vocabulary_size) == (12, 9)


def test_a_vocabulary_that_is_too_large_is_refused_at_the_start(course_folder, config, model_param, monkeypatch):
    checkVocabulary(LARGEST_VOCABULARY)
    with pytest.raises(UserError, match='at most 55,000 words'):
        checkVocabulary(LARGEST_VOCABULARY + 1)
    course_folder()
    monkeypatch.setattr('utils.networks.captionRewards.LARGEST_VOCABULARY', 8)
    build(config, model_param)
    with pytest.raises(UserError, match="at most 8 words. Set config\\['vocabulary_size'\\] to fewer"):
        build({**config, 'selfCriticalEpochs': 1}, model_param)


class Fixed(torch.nn.Module):
    """A network that finds the three words 0, 1, 2 as probable as its weights say, whatever came before."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))

    def process_features(self, cnn_features):
        return cnn_features

    prepare = process_features

    def next_words(self, image, word, state):
        return self.weight.expand(len(word), -1), torch.zeros(1, len(word), 1)

    def logits_of_words(self, processed, words, state=None):
        return self.weight.expand(len(words.data), -1), torch.zeros(1, len(processed), 1)


def test_words_are_drawn_as_probable_as_they_are():
    torch.manual_seed(1)
    tokens = sampledTokens(Fixed(), torch.zeros(3, 1), torch.ones(3, dtype=torch.int64), 4000)
    assert tokens.shape[:2] == (3, 4000)
    shares = torch.bincount(tokens[:, :, 0].flatten(), minlength=3) / 12000
    assert torch.allclose(shares, Fixed().weight.softmax(0), atol=0.02)
    ended = (tokens == END).cumsum(2) > 0
    assert (tokens[ended] == END).all() and not torch.equal(tokens[0], tokens[1])


def test_the_gradient_of_three_words_by_hand(course_folder, config, model_param):
    course_folder()
    trainer = build(config, model_param)
    model = trainer.model
    model.net = Fixed()
    captions, advantages = [[1, 2, 0], [1, 1, 2]], torch.tensor([0.7, -0.4])     # words 2 0, and 1 2 that has no end
    collate = trainer.dataLoader.myDataDicts['train'].collate_fn
    batch = {'cnn_features': torch.zeros(2, 16), **collate.captionTensors(captions), 'advantages': advantages}
    sum(model.lossOfParts(batch)).backward()
    p = Fixed().weight.detach().softmax(0)
    one_hot = torch.eye(3)
    expected = 0.7 * ((p - one_hot[2]) + (p - one_hot[0])) - 0.4 * ((p - one_hot[1]) + (p - one_hot[2]))
    assert torch.allclose(model.net.weight.grad, expected, atol=1e-6)


@pytest.fixture
def critical(config):
    return {**config, 'selfCriticalEpochs': 2}


@pytest.mark.usefixtures('shared_meteor')
@pytest.mark.parametrize('stop', [1, 2, 3])
def test_a_run_that_is_killed_goes_on_to_the_same(course_folder, critical, model_param, stop):
    course_folder()
    model_param = {**model_param, 'numbOfEpochs': 2}
    whole = build(critical, model_param)
    whole.train()
    history = read(model_param, 'history.json')
    assert [('reward' in entry, 'train_loss' in entry) for entry in history] == [(False, True)] * 2 + [(True, False)] * 2
    assert [entry['learning_rate'] for entry in history[2:]] == [LEARNING_RATE] * 2 and all('cider' in entry for entry in history)
    param = {**model_param, 'modelsDir': model_param['modelsDir'] + 'again'}
    run_epoch = Trainer.run_epoch

    def killed(self, mode, model, is_train, epoch):
        if (mode, epoch) == ('val', stop + 1):
            raise KeyboardInterrupt
        return run_epoch(self, mode, model, is_train, epoch)

    with mock.patch.object(Trainer, 'run_epoch', killed), pytest.raises(KeyboardInterrupt):
        build(critical, param).train()
    resumed = build(critical, param)
    assert resumed.model.start_epoch == stop
    resumed.train()
    assert torch.equal(weights(resumed), weights(whole)) and read(param, 'history.json') == history
    assert build(critical, param).model.start_epoch == 4


def test_the_reward_rises_on_a_few_images(course_folder, critical, model_param, monkeypatch):
    course_folder()
    monkeypatch.setattr(selfCritical, 'CAPTIONS', 16)
    trainer = build(critical, model_param)
    model, loader = trainer.model, trainer.dataLoader.myDataDicts['train']
    rewards, batch, means = trainer.dataLoader.captionRewards(), next(iter(loader)), []
    model.net.eval()
    for _ in range(120):
        batches = selfCritical.RewardedBatches([batch], model, loader, rewards)
        rewarded, = batches
        model.learn(model.lossOfParts(rewarded), float(rewarded['yWeights'].sum()))
        means.append(batches.total / batches.number)
    assert np.mean(means[-10:]) > 3 * np.mean(means[:10]) > 0


@pytest.mark.parametrize('model, changes', [(cocoSource_task2_gru, {}), (cocoSource_task4_attention, {
    'cellType': 'LSTM', 'featurepathstub': 'detectron2_lim10features', 'attention': 'content'})])
def test_a_batch_of_rewarded_captions(course_folder, config, model_param, model, changes):
    course_folder()
    trainer = build({**config, **changes, 'selfCriticalEpochs': 1}, model_param, model.ImageCaptionModel)
    loader = trainer.dataLoader.myDataDicts['train']
    batch = next(iter(loader))
    batch['yWeights'][1] = 0                                                     # an image that fills up a process's share
    trainer.model.net.eval()
    torch.manual_seed(3)
    said = trainer.model.sampledTokens(batch, CAPTIONS)
    torch.manual_seed(3)
    reward = trainer.dataLoader.captionRewards()
    batches = selfCritical.RewardedBatches([batch], trainer.model, loader, reward)
    rewarded, = batches
    assert rewarded['cnn_features'] is batch['cnn_features']
    lengths = torch.tensor([[len(upToEnd(tokens)) for tokens in of_image] for of_image in said])
    lengths[1] = 0
    assert torch.equal(rewarded['yWeights'].sum((1, 2)).view(-1, CAPTIONS).long(), lengths)
    references = [learnedWords(loader.dataset, captions) for captions in batch['allcaptionsAsTokens']]
    rewards = reward([[upToEnd(tokens) for tokens in of_image] for of_image in said], references)
    advantages = rewarded['advantages'].view(-1, CAPTIONS)
    for row in range(len(said)):
        for sample in range(CAPTIONS):
            others = np.delete(rewards[row], sample).mean()
            assert math.isclose(advantages[row, sample], rewards[row, sample] - others, abs_tol=1e-5)
    learned = np.delete(rewards, 1, axis=0)
    assert batches.number == learned.size and math.isclose(batches.total, learned.sum())
    each = [float(sum(trainer.model.lossOfParts({
        'cnn_features': batch['cnn_features'][row:row + 1], 'advantages': advantages[row, sample:sample + 1],
        **loader.collate_fn.captionTensors([[1, *upToEnd(said[row][sample])]])})).detach())
        for row in range(len(said)) for sample in range(CAPTIONS) if row != 1]
    assert math.isclose(float(sum(trainer.model.lossOfParts(rewarded)).detach()), sum(each), abs_tol=1e-3)
    before = weights(trainer)
    trainer.model.learn(trainer.model.lossOfParts(rewarded), float(lengths.sum()))
    assert not torch.equal(weights(trainer), before)


def test_the_texts_of_the_fixture_are_rewarded_for_what_they_are():
    tokens = {word: number for number, word in enumerate(sorted({word for group in TEXTS for text in group
                                                                 for word in text.split()}), start=3)}
    images = [[[tokens[word] for word in text.split()] + [END] for text in group] for group in TEXTS]
    rewards = rewardsBy(images)
    own = rewards([[group[0]] for group in images], images)
    others = rewards([[images[number - 1][0]] for number in range(len(images))], images)
    assert (own > others).all()


def test_files_of_a_run_are_drawn_with_their_reward(course_folder, critical, model_param, shared_meteor):
    course_folder()
    build(critical, {**model_param, 'numbOfEpochs': 1}, curves=True).train()
    folder = os.path.join(model_param['img_dir'], 'm')
    assert os.listdir(folder) == ['curves.png']
