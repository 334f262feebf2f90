"""The names, arguments and defaults that the course fixes: nothing may be renamed or reordered."""
import ast
import importlib
import inspect

import pytest

MODEL_FILES = ('cocoSource_xcnnfused', 'cocoSource_task2_gru', 'cocoSource_task3_lstm',
               'cocoSource_task4_attention')
DECODING = 'tokens, processed_cnn_features, initial_hidden_state, output_layer, embedding_layer'
OF_MODEL_FILES = {  # classes and functions, the numbers of the tasks whose files offer them
    'ImageCaptionModel(config)': '1234',
    'ImageCaptionModel.forward(self, cnn_features, x_tokens, is_train, '
    'current_hidden_state=None)': '1234',
    'loss_fn(logits, y_tokens, y_weights)': '1234',
    'RNNOneLayerSimplified(input_size, hidden_state_size)': '1',
    f'RNNOneLayerSimplified.forward(self, {DECODING}, is_train=True)': '1',
    "RNN(input_size, hidden_state_size, num_rnn_layers, cell_type='GRU')": '23',
    f'RNN.forward(self, {DECODING}, is_train=True)': '23',
    'RNN(input_size, hidden_state_size, num_rnn_layers, last_layer_state_size, '
    "cell_type='LSTM')": '4',
    f'RNN.forward(self, {DECODING}, attention_layer, is_train=True)': '4',
    'RNNsimpleCell(hidden_state_size, input_size)': '123',
    'RNNsimpleCell.forward(self, x, state_old)': '123',
    'GRUCell(hidden_state_size, input_size)': '234',
    'GRUCell.forward(self, x, hidden_state)': '234',
    'LSTMCell(hidden_state_size, input_size)': '34',
    'LSTMCell.forward(self, x, hidden_state)': '34',
}
OF_UTILS = [
    'dataLoader.DataLoaderWrapper(config, modelParam)',
    'model.Model(config, modelParam, imageCaptionModel)',
    'saverRestorer.SaverRestorer(config, modelParam)',
    'saverRestorer.SaverRestorer.save(self, epoch, currentLoss, model)',
    'saverRestorer.SaverRestorer.restore(self, model)',
    'trainer.Trainer(model, modelParam, config, dataLoader, saveRestorer)',
    'trainer.Trainer.train(self)',
    'trainer.Trainer.run_epoch(self, mode, model, is_train, cur_epoch)',
    'plotter.Plotter(modelParam, config)',
    'validate.plotImagesAndCaptions(model, modelParam, config, dataLoader)',
    'validate_metrics.validateCaptions(model, modelParam, config, dataLoader, beamSize=1)',
    'generateVocabulary.generateVocabulary(captions, minimumCount=1)',
    'generateVocabulary.loadVocabulary(data_dir)',
    *(f'metrics.{metric}.compute_score(self, gts, res)'
      for metric in ('BLEU', 'METEOR', 'CIDEr', 'ROUGE')),
]
EVERYTHING = [f'{MODEL_FILES[int(task) - 1]}.{signature}'
              for signature, tasks in OF_MODEL_FILES.items() for task in tasks]
EVERYTHING += [f'utils.{signature}' for signature in OF_UTILS]


@pytest.mark.parametrize('signature', EVERYTHING)
def test_the_signature_is_the_courses(signature):
    path, _, arguments = signature.partition('(')
    names = path.split('.')
    files = 2 if names[0] == 'utils' else 1
    found = importlib.import_module('.'.join(names[:files]))
    for name in names[files:]:
        found = getattr(found, name)
    assert str(inspect.signature(found)) == f'({arguments}'


CONFIG = {'vocabulary_size': 23, 'embedding_size': 5, 'number_of_cnn_features': 11,
          'hidden_state_sizes': 7}


@pytest.mark.parametrize('file, cell, layers', list(zip(
    MODEL_FILES, ('RNN', 'RNN', 'LSTM', 'LSTM'), (1, 2, 3, 2))))
def test_a_model_has_the_courses_names(file, cell, layers):
    net = importlib.import_module(file).ImageCaptionModel(
        {**CONFIG, 'cellType': cell, 'num_rnn_layers': layers})
    assert {name: getattr(net, name) for name in CONFIG} == CONFIG
    assert (net.num_rnn_layers, net.cell_type, net.nnmapsize) == (layers, cell, 512)
    assert net.simplifiedrnn is net.simplified_rnn is (file == MODEL_FILES[0])
    assert net.input_layer is net.inputLayer and net.nn_map_size == net.nnmapsize
    assert net.rnn.input_size == 5 + 512 and net.rnn.hidden_state_size == 7
    assert (net.rnn.num_rnn_layers, net.rnn.cell_type) == (layers, cell)
    assert len(net.rnn.cells) == layers
    names = {name.split('.')[0] for name in net.state_dict()}
    attention = {'attention_layer'} if file == MODEL_FILES[3] else set()
    assert names == {'embedding_layer', 'output_layer', 'inputLayer', 'rnn'} | attention


@pytest.mark.parametrize('file', MODEL_FILES)
def test_the_model_files_import_torch_and_each_other_alone(file):
    imported = set()
    for node in ast.walk(ast.parse(inspect.getsource(importlib.import_module(file)))):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split('.')[0])
    assert imported <= {'torch', *MODEL_FILES}
