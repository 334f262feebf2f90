"""Checkpoints of other trainers: of the handed-out code, and of students who train with it.

They hold `epoch`, which counts from 0, and `model_state_dict`, but no configuration. The input
layer is named as in the assignment, `inputLayer`, or as in the hand-out, `input_layer`.
"""
import re

from utils.data.dataFolder import POOLED, UNPOOLED

ORDER_OF_ROWS = ("This is a checkpoint of other code. If the rows of its cells' weights are in "
                 'another order than here (word, image, state), its captions make no sense.')


def asOurs(checkpoint):
    """The checkpoint with a `config`, the sizes of its weights, and the number of epochs done.

    Raises:
        KeyError: the weights have other names.
    """
    weights = {name.replace('input_layer', 'inputLayer'): weight
               for name, weight in checkpoint['model_state_dict'].items()}
    cellType = 'RNN'
    if 'rnn.cells.0.weight_u' in weights:
        cellType = 'GRU'
    if 'rnn.cells.0.weight_f' in weights:
        cellType = 'LSTM'
    attends = any('attention' in name for name in weights)
    layers = [name for name in weights if name.startswith('rnn.cells.') and name.endswith('.bias')]
    vocabulary_size, embedding_size = weights['embedding_layer.weight'].shape
    config = {
        'number_of_cnn_features': weights['inputLayer.1.weight'].shape[1],
        'embedding_size': embedding_size,
        'vocabulary_size': vocabulary_size,
        'hidden_state_sizes': weights['output_layer.weight'].shape[1],
        'num_rnn_layers': len(layers),
        'cellType': cellType,
        'featurepathstub': UNPOOLED if attends else POOLED,
    }
    return {**checkpoint, 'config': config, 'epoch': checkpoint['epoch'] + 1}


def spelledAs(net, weights):
    """Weights with the name that a network gives its input layer."""
    spelling = 'inputLayer' if 'inputLayer' in dict(net.named_children()) else 'input_layer'
    return {re.sub('inputLayer|input_layer', spelling, name): weight
            for name, weight in weights.items()}
