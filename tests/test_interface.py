"""The names, arguments and defaults that the course fixes: nothing may be renamed, reordered or added in front."""
import importlib
import inspect

import pytest

REQUIRED = inspect.Parameter.empty
DECODING = [('tokens', REQUIRED), ('processed_cnn_features', REQUIRED), ('initial_hidden_state', REQUIRED),
            ('output_layer', REQUIRED), ('embedding_layer', REQUIRED)]
MODEL_FILES = ('cocoSource_xcnnfused', 'cocoSource_task2_gru', 'cocoSource_task3_lstm', 'cocoSource_task4_attention')


def required(*names):
    return [(name, REQUIRED) for name in names]


SIGNATURES = {
    **{f'{file}:ImageCaptionModel': required('config') for file in MODEL_FILES},
    **{f'{file}:ImageCaptionModel.forward': required('self', 'cnn_features', 'x_tokens', 'is_train')
       + [('current_hidden_state', None)] for file in MODEL_FILES},
    **{f'{file}:loss_fn': required('logits', 'y_tokens', 'y_weights') for file in MODEL_FILES},
    'cocoSource_xcnnfused:RNNOneLayerSimplified': required('input_size', 'hidden_state_size'),
    'cocoSource_xcnnfused:RNNOneLayerSimplified.forward': required('self') + DECODING + [('is_train', True)],
    'cocoSource_task2_gru:RNN': required('input_size', 'hidden_state_size', 'num_rnn_layers') + [('cell_type', 'GRU')],
    'cocoSource_task2_gru:RNN.forward': required('self') + DECODING + [('is_train', True)],
    'cocoSource_task3_lstm:RNN': required('input_size', 'hidden_state_size', 'num_rnn_layers') + [('cell_type', 'GRU')],
    'cocoSource_task3_lstm:RNN.forward': required('self') + DECODING + [('is_train', True)],
    'cocoSource_task4_attention:RNN': required('input_size', 'hidden_state_size', 'num_rnn_layers', 'last_layer_state_size')
    + [('cell_type', 'LSTM')],
    'cocoSource_task4_attention:RNN.forward': required('self') + DECODING + required('attention_layer') + [('is_train', True)],
    **{f'{file}:RNNsimpleCell': required('hidden_state_size', 'input_size') for file in MODEL_FILES[:3]},
    **{f'{file}:RNNsimpleCell.forward': required('self', 'x', 'state_old') for file in MODEL_FILES[:3]},
    **{f'{file}:GRUCell': required('hidden_state_size', 'input_size') for file in MODEL_FILES[1:]},
    **{f'{file}:GRUCell.forward': required('self', 'x', 'hidden_state') for file in MODEL_FILES[1:]},
    **{f'{file}:LSTMCell': required('hidden_state_size', 'input_size') for file in MODEL_FILES[2:]},
    **{f'{file}:LSTMCell.forward': required('self', 'x', 'hidden_state') for file in MODEL_FILES[2:]},
    'utils.dataLoader:DataLoaderWrapper': required('config', 'modelParam'),
    'utils.model:Model': required('config', 'modelParam', 'imageCaptionModel'),
    'utils.saverRestorer:SaverRestorer': required('config', 'modelParam'),
    'utils.saverRestorer:SaverRestorer.save': required('self', 'epoch', 'currentLoss', 'model'),
    'utils.saverRestorer:SaverRestorer.restore': required('self', 'model'),
    'utils.trainer:Trainer': required('model', 'modelParam', 'config', 'dataLoader', 'saveRestorer'),
    'utils.trainer:Trainer.train': required('self'),
    'utils.trainer:Trainer.run_epoch': required('self', 'mode', 'model', 'is_train', 'cur_epoch'),
    'utils.plotter:Plotter': required('modelParam', 'config'),
    'utils.validate:plotImagesAndCaptions': required('model', 'modelParam', 'config', 'dataLoader'),
    'utils.validate_metrics:validateCaptions': required('model', 'modelParam', 'config', 'dataLoader'),
    'utils.generateVocabulary:generateVocabulary': required('captions') + [('minimumCount', 1)],
    'utils.generateVocabulary:loadVocabulary': required('data_dir'),
    **{f'utils.metrics:{metric}.compute_score': required('self', 'gts', 'res') for metric in ('BLEU', 'METEOR', 'CIDEr', 'ROUGE')},
}


@pytest.mark.parametrize('place', SIGNATURES)
def test_the_signature_is_the_courses(place):
    module, _, path = place.partition(':')
    function = importlib.import_module(module)
    for name in path.split('.'):
        function = getattr(function, name)
    parameters = inspect.signature(function).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in parameters] == SIGNATURES[place]
    assert all(parameter.kind is parameter.POSITIONAL_OR_KEYWORD for parameter in parameters)


CONFIG = {'vocabulary_size': 23, 'embedding_size': 5, 'number_of_cnn_features': 11, 'hidden_state_sizes': 7, 'num_rnn_layers': 2,
          'cellType': 'LSTM'}


@pytest.mark.parametrize('file', MODEL_FILES)
def test_the_model_has_the_assignments_names_and_the_hand_outs(file):
    simple = {MODEL_FILES[0]: {'cellType': 'RNN', 'num_rnn_layers': 1}, MODEL_FILES[1]: {'cellType': 'GRU'}}
    changes = simple.get(file, {})
    net = importlib.import_module(file).ImageCaptionModel({**CONFIG, **changes})
    assert net.inputLayer is net.input_layer and net.nnmapsize == net.nn_map_size == 512
    assert net.simplifiedrnn is net.simplified_rnn is (file == MODEL_FILES[0])
    assert hasattr(net, 'attention_layer') == (file == MODEL_FILES[3])
    assert net.rnn.input_size == 5 + 512 and net.rnn.hidden_state_size == 7
    assert (net.rnn.num_rnn_layers, net.rnn.cell_type) == (net.num_rnn_layers, net.cell_type)
    names = {name.split('.')[0] for name in net.state_dict()}
    attention = {'attention_layer'} if file == MODEL_FILES[3] else set()
    assert names == {'embedding_layer', 'output_layer', 'inputLayer', 'rnn'} | attention


def test_the_cells_have_the_courses_parameters():
    task3 = importlib.import_module('cocoSource_task3_lstm')
    for cell, gates in ((task3.RNNsimpleCell, ['']), (task3.GRUCell, ['_u', '_r', '']), (task3.LSTMCell, ['_f', '_i', '_o', ''])):
        names = [name for name, _ in cell(4, 3).named_parameters()]
        assert names == [f'{kind}{gate}' for gate in gates for kind in ('weight', 'bias')]
    assert task3.GRUCell(4, 3).hidden_state_sizes == 4


def test_the_simplified_rnn_that_is_not_wanted_says_where_the_other_is():
    task1 = importlib.import_module('cocoSource_xcnnfused')

    class Changed(task1.ImageCaptionModel):
        simplifiedrnn = property(lambda self: False, lambda self, value: None)   # as a student sets it in the constructor

    with pytest.raises(ValueError, match='cocoSource_task2_gru.py'):
        Changed({**CONFIG, 'cellType': 'GRU'})


def test_the_model_files_import_torch_and_each_other_alone():
    for file in MODEL_FILES:
        source = inspect.getsource(importlib.import_module(file))
        imported = {line.split()[1].split('.')[0] for line in source.splitlines() if line.startswith(('import ', 'from '))}
        assert imported <= {'torch', 'collections', *MODEL_FILES}
