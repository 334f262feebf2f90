"""Validates a trained model of any task: `validate` does all that a validation script asks for."""
from utils.data.dataFolder import DEMO_ROOT
from utils.pages.captionPage import writeCaptionPage
from utils.pages.examplePictures import plotImagesAndCaptions
from utils.saverRestorer import findForValidation, loadForValidation
from utils.scripts.start import load, prepare
from utils.validate_metrics import scoreTable, validateCaptions


def validate(config, modelParam, imageCaptionModel):
    """Validates a model: prints loss and scores, writes captions, a picture and a page of them.

    Args:
        config: dict of `beamSize`; the rest is the checkpoint's.
        modelParam: the dictionary of a validation script.
        imageCaptionModel: the class of the network.

    Returns:
        The scores, as `validateCaptions` does.

    Raises:
        UserError: settings, data or checkpoint cannot be used, or there is no checkpoint.
        JavaError: there is no Java, which the scores need.
    """
    modelParam, config = prepareForModel(modelParam, config)          # settings, data and Java
    model, dataLoader = restoredModel(modelParam, imageCaptionModel)  # as the checkpoint has it
    scores = validateCaptions(model, modelParam, model.config, dataLoader, config['beamSize'])
    print(scoreTable(scores, config['beamSize']))
    plotImagesAndCaptions(model, modelParam, model.config, dataLoader)
    writeCaptionPage(scores, modelParam)
    return scores


def prepareForModel(modelParam, config):
    """What `prepare` returns; for the demo data where only these have a model.

    The project comes with models of the demo data.
    """
    prepared, config = prepare(modelParam, config)
    if not findForValidation(prepared):
        demo, _ = prepare({**modelParam, 'data_dir': DEMO_ROOT})
        if findForValidation(demo):
            print(f"No model has been trained yet on the data in {prepared['data_dir']} as they "
                  "are now. The demo data's model is validated on the demo data instead.")
            return demo, config
    return prepared, config


def restoredModel(modelParam, imageCaptionModel):
    """A trained model and the loader of the images to validate it on.

    Args:
        modelParam: the dictionary of a validation script, as `prepare` returns it.
        imageCaptionModel: the class of the network.

    Returns:
        the `Model`, whose `config` is the checkpoint's; the `DataLoaderWrapper`.
    """
    config = loadForValidation(modelParam)['config']
    dataLoader, model, _ = load(config, modelParam, imageCaptionModel)
    return model, dataLoader
