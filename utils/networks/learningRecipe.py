"""What `config['learningRecipe']` may be: the assignment's way of learning, one that learns more in as many epochs, or one that
learns longer before it learns by heart.

'assignment' starts from random weights and the biases of the exercise's notes. 'informedStart' starts from what the training
data say without any learning:

- How often each word follows. The output layer's bias starts at the logarithm of the words' relative frequencies, so that
  the first steps need not learn them (Karpathy 2019, "A Recipe for Training Neural Networks").
- What all images have in common. Their mean features are taken off before the network sees them, so that its dropout and its
  steps are about what tells images apart (LeCun et al. 1998, "Efficient BackProp", section 4.3).

And what the layers see is centred too: all biases of the cells start at zero. LSTM's twos would have every hidden state start
near 0.8, at whatever word and image.

The model stays the same: biases are learned from there on, and the mean could be taken into the input layer's bias.

'regularised' starts like that, and makes the training captions harder to learn by heart. Each of these alone is usual; none
changes the trained model:

- Half of the last hidden state's elements are dropped out before the output layer (Zaremba et al. 2014, arXiv:1409.2329).
- A tenth of the words that the network is given are unknown ones (Bowman et al. 2016, arXiv:1511.06349, section 3.1).
- A tenth of the probability to be learned is spread over all words (Szegedy et al. 2016, arXiv:1512.00567, section 7).
"""
import torch
import torch.nn.functional as F

from utils.data.captionWords import UNKNOWN
from utils.files.errors import UserError

RECIPES = ASSIGNMENT, INFORMED_START, REGULARISED = 'assignment', 'informedStart', 'regularised'
HIDDEN_DROPOUT, WORD_DROPOUT, SMOOTHING = 0.5, 0.1, 0.1


def checkNetwork(net):
    """Raises a UserError where a network has not what all recipes but the assignment's need."""
    if getattr(getattr(net, 'output_layer', None), 'bias', None) is None or not hasattr(net, 'rnn'):
        raise UserError(f"config['learningRecipe'] needs a network with an output_layer that has a bias and with an rnn, "
                        f'which that of {type(net).__module__}.py lacks. Set it to {ASSIGNMENT!r}.')


def informStart(model, feature_mean, counts):
    """Puts what the training data say into a new `Model`.

    Args:
        model: the `Model`.
        feature_mean: [D], of the training images.
        counts: [V], how often each word is to be learned. One that never is counts as one that is once.

    Raises:
        UserError: the network has no `output_layer` with a bias, or no `rnn`.
    """
    net = model.net
    checkNetwork(net)
    counts = counts.double().clamp(min=1)
    model.setFeatureMean(feature_mean)
    with torch.no_grad():
        net.output_layer.bias.copy_((counts / counts.sum()).log())
        for name, parameter in net.rnn.named_parameters():
            if name.startswith('cells.') and name.split('.')[-1].startswith('bias'):
                parameter.zero_()


def dropHiddenElements(net):
    """Has a network's `output_layer` see, in training, hidden states of which some elements are dropped out; errors as
    `informStart`'s."""
    checkNetwork(net)
    net.output_layer.register_forward_pre_hook(
        lambda layer, hidden: F.dropout(hidden[0], HIDDEN_DROPOUT, layer.training))


def droppedWords(words):
    """Some of the words, integers of any shape, made unknown; not the start token, which is less than that."""
    return words.masked_fill((torch.rand(words.shape) < WORD_DROPOUT) & (words > UNKNOWN), UNKNOWN)


def smoothedLoss(logits, y_tokens, y_weights):
    """The sum that the models' `loss_fn` returns, with labels that are smoothed."""
    losses = F.cross_entropy(logits.flatten(0, 1).float(), y_tokens.flatten(), reduction='none', label_smoothing=SMOOTHING)
    return (losses * y_weights.flatten()).sum()
