"""Settings for the demo data: 2,000 scenes with 130 words, not COCO's 118,287 photos."""
from utils.data.dataFolder import isDemo

EPOCHS = 20      # the captions are learned by then
BATCH_SIZE = 64  # few images: smaller batches give enough optimizer steps


def fitToDemo(config, modelParam):
    """A training script's settings as the demo data need them; unchanged for other data.

    At most `EPOCHS` epochs and `BATCH_SIZE` images in a batch; the learning rate falls after the
    same fractions of the training.
    """
    if not isDemo(modelParam['data_dir']):
        return config, modelParam
    epochs = min(modelParam['numbOfEpochs'], EPOCHS)
    share = epochs / modelParam['numbOfEpochs']
    milestones = [max(1, round(milestone * share))
                  for milestone in config['scheduler_milestones'] or []]
    batch_size = min(modelParam['batch_size'], BATCH_SIZE)
    changes = {'numbOfEpochs': epochs, 'batch_size': batch_size}
    if changes != {key: modelParam[key] for key in changes}:
        print(f'For the demo data numbOfEpochs is {epochs}, batch_size {batch_size}, and '
              f'scheduler_milestones {milestones}.')
    return {**config, 'scheduler_milestones': milestones}, {**modelParam, **changes}
