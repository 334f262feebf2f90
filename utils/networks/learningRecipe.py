"""What `config['learningRecipe']` may be: the assignment's way of learning, or one that learns more in as many epochs.

'assignment' starts from random weights and the biases of the exercise's notes. 'informedStart' starts from what the training
data say without any learning:

- How often each word follows. The output layer's bias starts at the logarithm of the words' relative frequencies, so that
  the first steps need not learn them (Karpathy 2019, "A Recipe for Training Neural Networks").
- What all images have in common. Their mean features are taken off before the network sees them, so that its dropout and its
  steps are about what tells images apart (LeCun et al. 1998, "Efficient BackProp", section 4.3).

And what the layers see is centred too: all biases of the cells start at zero. LSTM's twos would have every hidden state start
near 0.8, at whatever word and image.

The model stays the same: biases are learned from there on, and the mean could be taken into the input layer's bias.
"""
import torch

from utils.files.errors import UserError

RECIPES = ASSIGNMENT, INFORMED_START = 'assignment', 'informedStart'


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
    if getattr(getattr(net, 'output_layer', None), 'bias', None) is None or not hasattr(net, 'rnn'):
        raise UserError(f"config['learningRecipe'] = {INFORMED_START!r} needs a network with an output_layer and an rnn, which "
                        f"that of {type(net).__module__}.py lacks. Set it to {ASSIGNMENT!r}.")
    counts = counts.double().clamp(min=1)
    model.setFeatureMean(feature_mean)
    with torch.no_grad():
        net.output_layer.bias.copy_((counts / counts.sum()).log())
        for name, parameter in net.rnn.named_parameters():
            if name.startswith('cells.') and name.split('.')[-1].startswith('bias'):
                parameter.zero_()
