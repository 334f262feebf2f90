"""Task 2: trains the two-layer GRU.

    CUDA_VISIBLE_DEVICES=x python Exercise_Train_task2.py

Which data: utils/dataRoot.py. On the demo data it trains less, see utils/demo/demoSettings.py.
Started again, it goes on where it stopped.
"""
import utils  # noqa: F401 (before torch)
from cocoSource_task2_gru import ImageCaptionModel
from utils.data.dataFolder import dataDir
from utils.scripts.endings import runScript
from utils.trainer import train

config = {
    'optimizer': 'adamW',             # 'adamW', 'adam', 'SGD' or 'RMSprop'
    'learningRate': {'lr': 0.001},
    'weight_decay': 1e-5,
    'number_of_cnn_features': 2048,   # or as many as the data have
    'embedding_size': 300,
    'vocabulary_size': 10000,         # fewer where the vocabulary has fewer words
    'truncated_backprop_length': 25,  # longer captions are learned in parts
    'hidden_state_sizes': 512,
    'num_rnn_layers': 2,
    'cellType': 'GRU',
    # epochs after which the learning rate falls: at three quarters and nine tenths of the training
    'scheduler_milestones': [60, 72],
    'scheduler_factor': 0.2,
    'learningRecipe': 'assignment',   # or 'informedStart', 'regularised': better scores (README.md)
    'selfCriticalEpochs': 0,          # further epochs that learn from scores of whole captions
    'precision': 'float32',           # or 'bfloat16', 'float16': faster on some devices (README.md)
    'featurepathstub': 'detectron2_lim10maxfeatures',  # pooled
    'seed': 1,
}

modelParam = {  # folders and other keys: utils/scripts/settings.py
    'batch_size': 128,
    'cuda': {'use_cuda': True, 'device_idx': 0},
    'numbOfCPUThreadsUsed': 10,       # threads that read files
    'numbOfEpochs': 80,
    'data_dir': dataDir(),            # set in utils/dataRoot.py
    'modelName': 'task2_gru/',        # the name of the data is added
    'restoreModelLast': 0,            # 1 goes on from the last epoch even if settings have changed
    'restoreModelBest': 0,            # 1 goes on from the best epoch
}


def main():
    train(config, modelParam, ImageCaptionModel)


if __name__ == '__main__':
    runScript(main)
