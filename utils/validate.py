"""Validates a trained model of any of the tasks: `validate` does all that a validation script asks for."""
from utils.data.dataFolder import DEMO_ROOT, isDemo
from utils.dataLoader import DataLoaderWrapper
from utils.files.defaults import VALIDATION_CONFIG
from utils.model import Model
from utils.pages.captionPage import writeCaptionPage
from utils.pages.examplePictures import plotImagesAndCaptions
from utils.saverRestorer import SaverRestorer, findForValidation, loadForValidation
from utils.scripts.start import announce, prepare
from utils.validate_metrics import scoreTable, validateCaptions


def validate(config, modelParam, imageCaptionModel):
    """Validates a task's model: prints loss and scores, writes captions, a picture and a page of them.

    Args:
        config: dict, what is not the checkpoint's: `beamSize`.
        modelParam: the dictionary of a validation script.
        imageCaptionModel: the class of the network.

    Returns:
        The scores, as `validateCaptions` does.

    Raises:
        UserError: settings, data or checkpoint cannot be used, or there is no checkpoint.
        JavaError: there is no Java, which the scores need.
    """
    config = {**VALIDATION_CONFIG, **config}
    modelParam = prepareForModel(modelParam, config)                  # settings, folders, data and Java
    model, dataLoader = restoredModel(config, modelParam, imageCaptionModel)
    scores = validateCaptions(model, modelParam, model.config, dataLoader)
    print(scoreTable(scores, model.config))
    plotImagesAndCaptions(model, modelParam, model.config, dataLoader)
    writeCaptionPage(scores, modelParam, dataLoader)
    return scores


def prepareForModel(modelParam, config):
    """What `prepare` returns, for the data that the script chooses; where no model has been trained on them, for the demo
    data, which the models that come with the project were trained on."""
    prepared = prepare(modelParam, config)
    if isDemo(prepared['data_dir']) or findForValidation(prepared):
        return prepared
    demo = prepare({**modelParam, 'data_dir': DEMO_ROOT}, config)
    if findForValidation(demo):
        print(f"No model has been trained on the data in {prepared['data_dir']} yet (python {modelParam['trainingScript']} does "
              'that). The model that comes with the project is validated, on the demo data, which it was trained on.', flush=True)
        return demo
    return prepared


def restoredModel(config, modelParam, imageCaptionModel):
    """A trained model and the loader of what it is validated on; arguments as `validate`'s, `modelParam` as prepared.

    Returns:
        the `Model`, whose `config` is the checkpoint's with the values of `config`; the `DataLoaderWrapper`.
    """
    checkpoint = loadForValidation(modelParam)
    dataLoader = DataLoaderWrapper({**checkpoint['config'], **config}, modelParam)
    model = Model(dataLoader.config, modelParam, imageCaptionModel)   # every size is the checkpoint's
    announce(modelParam, dataLoader, model)
    dataLoader.checkFiles()
    SaverRestorer(dataLoader.config, modelParam).load(model, checkpoint)
    return model, dataLoader
