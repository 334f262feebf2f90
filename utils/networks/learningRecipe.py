"""What `config['learningRecipe']` may be: the assignment's way of learning, or one that learns more in as many epochs.

'assignment' starts from random weights and the biases of the exercise's notes. 'informedStart' starts from what the training
data say without any learning:

- How often each word follows. The output layer's bias starts at the logarithm of the words' relative frequencies, so that
  the first steps need not learn them (Karpathy 2019, "A Recipe for Training Neural Networks").
- What all images have in common. Their mean features are taken off before the input layer, so that its dropout and its
  steps are about what tells images apart (LeCun et al. 1998, "Efficient BackProp", section 4.3).

And what the layers see is centred too: all biases of the cells start at zero. LSTM's twos would have every hidden state start
near 0.8, at whatever word and image.

None makes another model: biases are learned from there on, and the mean could be folded into the input layer's.
"""
import torch

RECIPES = ASSIGNMENT, INFORMED_START = 'assignment', 'informedStart'


def centreInput(net):
    """From now on `net.inputLayer` sees its input, [B, D] or [B, D, ..], less its buffer `feature_mean` [D], which is zeros."""
    def centred(layer, inputs):
        features, = inputs
        return features - layer.feature_mean.view(-1, *[1] * (features.dim() - 2))

    net.inputLayer.register_buffer('feature_mean', next(net.inputLayer.parameters()).new_zeros(net.number_of_cnn_features))
    net.inputLayer.register_forward_pre_hook(centred)


def informStart(net, feature_mean, counts):
    """Puts what the training data say into a new network that `centreInput` has been called for.

    Args:
        net: an `imageCaptionModel`.
        feature_mean: [D], of the training images.
        counts: [V], how often each word is to be learned. One that never is counts as one that is once.
    """
    counts = counts.double().clamp(min=1)
    with torch.no_grad():
        net.inputLayer.feature_mean.copy_(feature_mean)
        net.output_layer.bias.copy_((counts / counts.sum()).log())
        for name, parameter in net.rnn.named_parameters():
            if name.split('.')[-1].startswith('bias'):
                parameter.zero_()
