"""Task 4: validates the two-layer LSTM with attention that Exercise_Train_task4.py has trained.

    TMP=./tmp python Validate_task4.py

Prints validation loss and scores, writes captions, a picture and a page of them. Which data: utils/dataRoot.py.
"""
from cocoSource_task4_attention import ImageCaptionModel
from utils.data.dataFolder import dataDir
from utils.dataLoader import DataLoaderWrapper
from utils.model import Model
from utils.pages.captionPage import writeCaptionPage
from utils.saverRestorer import SaverRestorer, loadForValidation
from utils.scripts.endings import runScript
from utils.scripts.start import announce, prepare
from utils.validate import plotImagesAndCaptions
from utils.validate_metrics import scoreTable, validateCaptions

config = {
    'beamSize': 3,                          # captions a beam search keeps, beside the greedy ones; 1: greedy alone
}

modelParam = {
    'batch_size': 128,
    'cuda': {'use_cuda': True, 'device_idx': 0},
    'numbOfCPUThreadsUsed': 10,             # processes that read files, at most one per core
    'data_dir': dataDir(),                  # set in utils/dataRoot.py
    'img_dir': 'lossImages/',
    'modelsDir': 'storedModels/',
    'modelName': 'task4_attention/',        # the name of the data is added
    'trainingScript': 'Exercise_Train_task4.py',
    'restoreModelLast': 0,                  # 1 validates the last epoch's model instead of the best one
    'restoreModelBest': 1,
    'modeSetups': [['val', False]],
    'inNotebook': False,
    'inference': True,
}


def main():
    parameters = prepare(modelParam, config)                          # settings, folders, data and Java
    fullConfig = {**loadForValidation(parameters)['config'], **config}  # every size is the checkpoint's
    dataLoader = DataLoaderWrapper(fullConfig, parameters)            # batches of features and captions
    model = Model(fullConfig, parameters, ImageCaptionModel)
    announce(parameters, dataLoader, model)
    SaverRestorer(fullConfig, parameters).restore(model)
    scores = validateCaptions(model, parameters, fullConfig, dataLoader)
    print(scoreTable(scores, fullConfig))
    plotImagesAndCaptions(model, parameters, fullConfig, dataLoader)
    writeCaptionPage(scores, parameters, dataLoader)


if __name__ == '__main__':
    runScript(main)
