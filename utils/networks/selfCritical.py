"""Learning from the score itself: self-critical sequence training (Rennie et al. 2017,
arXiv:1612.00563).

After the epochs of cross entropy the network samples captions of the training images, and each is
rewarded. A caption's words become more probable where its reward is above the mean of the image's
other samples, and less where it is below (Luo 2020, arXiv:2003.09971): the loss is their cross
entropy times that advantage.
"""
import torch

from utils.data.captionWords import START, beforeEnd

CAPTIONS = 4             # samples of each image
LEARNING_RATE = 5e-5


class RewardedBatches:
    """Batches of sampled captions, made of batches of training images as they are asked for.

    Args:
        batches: the images' batches.
        model: a `Model`, which samples the captions.
        loader: the loader that the batches come from.
        rewards: a `CaptionRewards`.

    Attributes:
        total, number: the sum and the number of the rewards so far.
    """

    def __init__(self, batches, model, loader, rewards):
        self.batches = batches
        self.model = model
        self.loader = loader
        self.rewards = rewards
        self.total, self.number = 0.0, 0

    def __iter__(self):
        for batch in self.batches:
            if not batch['yWeights'].any():  # it only stands in for a process's share of a batch
                yield batch
                continue
            samples = [[upToEnd(tokens) for tokens in samples_of_image]
                       for samples_of_image in self.model.sampledTokens(batch, CAPTIONS)]
            rewards = self.rewards(samples, batch.references())          # [B, S]
            self.total += float(rewards.sum())
            self.number += rewards.size
            mean_of_others = (rewards.sum(1, keepdims=True) - rewards) / (CAPTIONS - 1)
            captions = [[START, *sample] for of_image in samples for sample in of_image]
            yield {'cnn_features': batch['cnn_features'],
                   **self.loader.collate_fn.captionTensors(captions),
                   'advantages': torch.from_numpy(rewards - mean_of_others).float().flatten(),
                   'imgPaths': batch['imgPaths']}

    def set_postfix_str(self, text, refresh=False):
        """Shows the mean reward so far instead of the loss, which means nothing here."""
        self.batches.set_postfix_str(f'reward {self.total / max(1, self.number):.3f}', refresh)


def upToEnd(tokens):
    """A caption's tokens up to its end token; all of them where it has none."""
    return tokens[:len(beforeEnd(tokens)) + 1]
