"""What `config['learningRecipe']` may be: the assignment's way of learning, or one that learns more in as many epochs.

'assignment' starts from random weights and the biases of the exercise's notes. 'informedStart' starts from what is known
without any learning:

- How often each word follows. The output layer's bias starts at the logarithm of the words' relative frequencies, so that
  the first steps need not learn them (Karpathy 2019, "A Recipe for Training Neural Networks").
- What all images have in common. Their mean features are taken off before the input layer, so that its dropout and its
  steps are about what tells images apart (LeCun et al. 1998, "Efficient BackProp", section 4.3).
- That a memory must last. The gate that keeps it, LSTM's forget or GRU's update gate, starts with a bias of one (Jozefowicz
  et al. 2015, "An Empirical Exploration of Recurrent Network Architectures"), all other biases of the cells at zero.

None makes another model: biases are learned from there on, and the mean could be folded into the input layer's.
"""
import torch

RECIPES = ASSIGNMENT, INFORMED_START = 'assignment', 'informedStart'
KEEPING_GATES = 'bias_f', 'bias_u'  # their biases in LSTM and GRU cells


def centreInput(net):
    """From now on `net.inputLayer` sees its input, [B, D] or [B, D, ..], less its buffer `feature_mean` [D], which is zeros."""
    def centred(layer, inputs):
        features, = inputs
        return features - layer.feature_mean.view(-1, *[1] * (features.dim() - 2))

    net.inputLayer.register_buffer('feature_mean', next(net.inputLayer.parameters()).new_zeros(net.number_of_cnn_features))
    net.inputLayer.register_forward_pre_hook(centred)


def informStart(net, feature_mean, counts):
    """Puts what is known without learning into a new network that `centreInput` has been called for.

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
            name = name.split('.')[-1]
            if name.startswith('bias'):
                parameter.fill_(name in KEEPING_GATES)
