"""What `config['learningRecipe']` may be: three ways to train the same model.

'assignment' starts from random weights and the biases of the exercise's notes.

'informedStart' learns more in the same number of epochs, by starting from statistics of the
training data:

- How often each word follows. The output layer's bias starts at the logarithm of the words'
  relative frequencies, so that the first steps need not learn them (Karpathy 2019, "A Recipe for
  Training Neural Networks").
- What all images have in common. Their mean is subtracted from the features, so that dropout and
  steps are about what tells images apart (LeCun et al. 1998, "Efficient BackProp", section 4.3).
- All biases of the cells start at zero. With the LSTM's twos every hidden state would start near
  0.8, whatever the word and the image.

The model stays the same: biases are learned from there on, and the mean could be taken into the
input layer's bias.

'regularised' starts like that, and makes the training captions harder to memorise, so that longer
training pays. Each of these is common practice, and none changes the trained model:

- Half of the last hidden state's elements are dropped out before the output layer (Zaremba et al.
  2014, arXiv:1409.2329).
- Word dropout: a tenth of the input words become `UNK` (Bowman et al. 2016,
  arXiv:1511.06349, section 3.1).
- Label smoothing: a tenth of the target probability is spread over all words (Szegedy et al. 2016,
  arXiv:1512.00567, section 7).
"""
import torch
import torch.nn.functional as F

from utils.data.captionWords import UNKNOWN
from utils.files.errors import UserError

RECIPES = ASSIGNMENT, INFORMED_START, REGULARISED = 'assignment', 'informedStart', 'regularised'
HIDDEN_DROPOUT, WORD_DROPOUT, SMOOTHING = 0.5, 0.1, 0.1


def checkNetwork(net):
    """Raises a UserError where a network lacks what all recipes but the assignment's need."""
    bias = getattr(getattr(net, 'output_layer', None), 'bias', None)
    if bias is None or not hasattr(net, 'rnn'):
        raise UserError("config['learningRecipe'] needs a network with an output_layer that has a "
                        f'bias, and with an rnn, which that of {type(net).__module__}.py lacks. '
                        f'Set it to {ASSIGNMENT!r}.')


def informStart(model, feature_mean, counts):
    """Initialises a new `Model` from training statistics.

    Args:
        model: the `Model`.
        feature_mean: [D], of the training images.
        counts: [V], how often each word is a target; 0 counts as 1.

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


def dropHiddenStates(net):
    """Adds dropout of hidden states before a network's `output_layer`, in training alone; errors
    as `informStart`'s."""
    checkNetwork(net)
    net.output_layer.register_forward_pre_hook(
        lambda layer, hidden: F.dropout(hidden[0], HIDDEN_DROPOUT, layer.training))


def droppedWords(words):
    """Words, integers of any shape, some of them replaced by `UNK`; start and end tokens stay."""
    dropped = torch.rand(words.shape) < WORD_DROPOUT
    return words.masked_fill(dropped & (words > UNKNOWN), UNKNOWN)


def smoothedLoss(logits, y_tokens, y_weights):
    """The sum that the models' `loss_fn` returns, with smoothed labels."""
    losses = F.cross_entropy(logits.flatten(0, 1), y_tokens.flatten(), reduction='none',
                             label_smoothing=SMOOTHING)
    return (losses * y_weights.flatten()).sum()
