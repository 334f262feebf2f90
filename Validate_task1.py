"""Task 1: validates the one-layer RNN that Exercise_Train_task1.py has trained.

    python Validate_task1.py

Prints the validation loss and the scores, writes captions, a picture and a page of them.
Which data: utils/dataRoot.py.
"""
import utils  # noqa: F401 (before torch)
from cocoSource_xcnnfused import ImageCaptionModel
from utils.data.dataFolder import dataDir
from utils.scripts.endings import runScript
from utils.validate import validate

config = {
    'beamSize': 3,                    # captions kept by beam search; 1: greedy captions only
}

modelParam = {  # folders and other keys: utils/scripts/settings.py
    'batch_size': 128,
    'cuda': {'use_cuda': True, 'device_idx': 0},
    'numbOfCPUThreadsUsed': 10,       # threads that read files
    'data_dir': dataDir(),            # set in utils/dataRoot.py
    'modelName': 'task1_rnn/',        # the name of the data is added
    'restoreModelLast': 0,            # 1 validates the last epoch's model instead of the best one
    'inference': True,
}


def main():
    validate(config, modelParam, ImageCaptionModel)


if __name__ == '__main__':
    runScript(main)
