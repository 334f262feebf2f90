"""Self-critical training: its rewards against pycocoevalcap's and by hand, its gradient by hand,
and how its runs go."""
import functools
import math
import os
import random

import numpy as np
import pytest
import torch
from pycocoevalcap.cider.cider import Cider
from test_training import check_resumed, read

from cocoSource_task4_attention import ImageCaptionModel as AttentionModel
from utils.data.captionWords import END
from utils.dataLoader import DataLoaderWrapper
from utils.networks import selfCritical
from utils.networks.captionRewards import METEOR_SHARE, CaptionRewards, ngrams
from utils.networks.decoding import sampledTokens
from utils.networks.selfCritical import CAPTIONS, LEARNING_RATE, upToEnd

V = 60


def frequenciesIn(images, vocabulary_size):
    """Codes of all n-grams, sorted, and the number of images that have each."""
    codes = [np.unique(ngrams(captions, vocabulary_size)[1]) for captions in images]
    return np.unique(np.concatenate(codes), return_counts=True)


def rewardsBy(images):
    """`CaptionRewards` by the captions of images, lists of lists of tokens."""
    return CaptionRewards(*frequenciesIn(images, V), len(images), V)


def randomCaption(rng):
    return [min(V - 1, int(rng.paretovariate(0.4)) + 2) for _ in range(rng.randint(0, 14))] + [END]


def inWords(captions):
    return [' '.join(map(str, tokens)) for tokens in captions]


def test_cider_is_pycocoevalcaps():
    rng = random.Random(2)
    images = [[randomCaption(rng) for _ in range(rng.randint(1, 6))] for _ in range(60)]
    rewards, samples, ours = rewardsBy(images), [], []
    for references in images:                                            # one near, one random
        near = [token for token in rng.choice(references) if token == END or rng.random() < 0.8]
        samples.append([near, randomCaption(rng)])
        ours.append(rewards.scores(samples[-1], references)[0])
    assert np.max(ours) > 1
    references = dict(enumerate(map(inWords, images)))
    for sample in range(2):
        captions = {image: inWords([both[sample]]) for image, both in enumerate(samples)}
        _, expected = Cider().compute_score(references, captions)
        assert np.allclose(np.array(ours)[:, sample], expected, rtol=0, atol=1e-9)


def test_meteor_by_hand():
    rewards = rewardsBy([[[3, 4, 5, 6, END]], [[9, END]]])
    samples = [[3, 4, 7, END], [4, 3, END], [7, END], [3, 4, 5, 6, END]]

    def meteor(matches, words, chunks):
        precision, recall = matches / words, matches / 4
        mean = precision * recall / (0.85 * precision + 0.15 * recall)
        return mean * (1 - 0.6 * (chunks / matches) ** 0.2)

    _, scores = rewards.scores(samples, [[3, 4, 5, 6, END]])
    assert np.allclose(scores, [meteor(2, 3, 1), meteor(2, 2, 2), 0, meteor(4, 4, 1)])
    _, best = rewards.scores(samples, [[9, END], [3, 4, 5, 6, END], [8, 7, END]])
    assert np.allclose(best[[1, 3]], scores[[1, 3]])                     # the best reference counts
    assert math.isclose(best[2], 0.5 / (0.85 + 0.15 * 0.5) * 0.4)
    references = [[[3, 4, 5, 6, END]], [[4, 3, END]]]
    scores = [rewards.scores(samples, of_image) for of_image in references]
    expected = [cider + METEOR_SHARE * meteors for cider, meteors in scores]
    assert np.allclose(rewards([samples] * 2, references), expected)


def learned_words(dataset, captions):
    """What is learned of captions, from their second token on; unknown words are V."""
    V = dataset.vocabulary_size
    return [[V if token == 2 else token for token in dataset.tokensToLearn(caption)[1:]]
            for caption in captions]


def test_rewards_by_the_data_folder_are_those_of_its_captions(course_folder, config, model_param):
    course_folder(n_train=12)
    config = {**config, 'vocabulary_size': 9}                            # so that some are unknown
    loader = DataLoaderWrapper(config, model_param)
    dataset = loader.myDataDicts['train'].dataset
    images = list(map(dataset.references, range(12)))
    assert images == [learned_words(dataset, dataset.load(index)['captionsAsTokens'])
                      for index in range(12)]
    tokens = {token for captions in images for caption in captions for token in caption}
    assert 9 in tokens and 2 not in tokens
    codes, frequencies = frequenciesIn(images, 9)
    rewards = loader.captionRewards()
    assert np.array_equal(rewards.codes, codes)
    assert np.array_equal(rewards.frequencies, frequencies)
    assert (rewards.images, rewards.vocabulary_size) == (12, 9)


class Fixed(torch.nn.Module):
    """A network of three words, each as probable as its weight says, whatever came before."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor([0.3, -0.2, 0.5]))

    def process_features(self, cnn_features):
        return cnn_features

    prepare = process_features

    def logits_of_words(self, prepared, words, batch_sizes, state=None):
        return self.weight.expand(len(words), -1), torch.zeros(1, batch_sizes[-1], 1)


def test_words_are_drawn_with_their_probabilities():
    torch.manual_seed(1)
    tokens = sampledTokens(Fixed(), torch.zeros(3, 1), torch.ones(3, dtype=torch.int64), 4000)
    assert tokens.shape[:2] == (3, 4000)
    shares = torch.bincount(tokens[:, :, 0].flatten(), minlength=3) / 12000
    assert torch.allclose(shares, Fixed().weight.softmax(0), atol=0.02)
    ended = (tokens == END).cumsum(2) > 0
    assert (tokens[ended] == END).all() and not torch.equal(tokens[0], tokens[1])
    diverged = Fixed()
    diverged.weight.data[1] = float('nan')
    tokens = sampledTokens(diverged, torch.zeros(3, 1), torch.ones(3, dtype=torch.int64), 2)
    assert tokens.max() < 3  # the loss will say it


def test_the_gradient_of_three_words_by_hand(new_trainer):
    trainer = new_trainer()
    model = trainer.model
    model.net = Fixed()
    captions = [[1, 2, 0], [1, 1, 2]]                                    # 2 0, and 1 2 without end
    collate = trainer.dataLoader.myDataDicts['train'].collate_fn
    batch = {'cnn_features': torch.zeros(2, 16), **collate.captionTensors(captions),
             'advantages': torch.tensor([0.7, -0.4])}
    sum(model.lossOfParts(batch)).backward()
    p, one_hot = Fixed().weight.detach().softmax(0), torch.eye(3)
    expected = 0.7 * (2 * p - one_hot[2] - one_hot[0]) - 0.4 * (2 * p - one_hot[1] - one_hot[2])
    assert torch.allclose(model.net.weight.grad, expected, atol=1e-6)


@pytest.mark.usefixtures('without_java')
def test_a_run_that_is_left_goes_on_to_the_same(new_trainer):
    make = functools.partial(new_trainer, curves=True, numbOfEpochs=2, selfCriticalEpochs=2)
    whole = check_resumed(make, epoch=3)
    assert make().model.start_epoch == 4
    assert os.path.exists(whole.plotter.path)
    history = read(whole, 'history.json')
    assert [('reward' in entry, 'train_loss' in entry, 'cider' in entry) for entry in history] == [
        (False, True, True)] * 2 + [(True, False, True)] * 2
    assert [entry['learning_rate'] for entry in history[2:]] == [LEARNING_RATE] * 2


def test_the_reward_rises_on_a_few_images(new_trainer, monkeypatch):
    monkeypatch.setattr(selfCritical, 'CAPTIONS', 16)
    trainer = new_trainer()
    model, loader = trainer.model, trainer.dataLoader.myDataDicts['train']
    rewards, batch, means = trainer.dataLoader.captionRewards(), next(iter(loader)), []
    model.net.eval()
    for _ in range(60):
        batches = selfCritical.RewardedBatches([batch], model, loader, rewards)
        rewarded, = batches
        model.learn(rewarded, float(rewarded['yWeights'].sum()))
        means.append(batches.total / batches.number)
    assert np.mean(means[-10:]) > 2 * np.mean(means[:10]) > 0


def test_a_batch_of_rewarded_captions(new_trainer):
    trainer = new_trainer(AttentionModel, attention='content')
    model, loader = trainer.model, trainer.dataLoader.myDataDicts['train']
    batch = next(iter(loader))
    model.net.eval()
    torch.manual_seed(3)
    samples = [list(map(upToEnd, samples_of_image))
               for samples_of_image in model.sampledTokens(batch, CAPTIONS)]
    torch.manual_seed(3)
    captionRewards = trainer.dataLoader.captionRewards()
    batches = selfCritical.RewardedBatches([batch], model, loader, captionRewards)
    rewarded, = batches
    assert rewarded['cnn_features'] is batch['cnn_features']
    lengths = torch.tensor([list(map(len, samples_of_image)) for samples_of_image in samples])
    assert torch.equal(rewarded['yWeights'].sum((1, 2)).view(-1, CAPTIONS).long(), lengths)
    references = [learned_words(loader.dataset, captions)
                  for captions in batch['allcaptionsAsTokens']]
    rewards = captionRewards(samples, references)
    mean_of_others = (rewards.sum(1, keepdims=True) - rewards) / (CAPTIONS - 1)
    advantages = rewarded['advantages'].view(-1, CAPTIONS)
    assert np.allclose(advantages, rewards - mean_of_others, atol=1e-5)
    assert batches.number == rewards.size and math.isclose(batches.total, rewards.sum())
    expected = 0.0
    for row, samples_of_image in enumerate(samples):                     # each image by itself
        alone = {'cnn_features': batch['cnn_features'][row:row + 1],
                 'advantages': advantages[row],
                 **loader.collate_fn.captionTensors(
                     [[1, *sample] for sample in samples_of_image])}
        expected += float(sum(model.lossOfParts(alone)).detach())
    loss = float(sum(model.lossOfParts(rewarded)).detach())
    assert math.isclose(loss, expected, abs_tol=1e-3)
