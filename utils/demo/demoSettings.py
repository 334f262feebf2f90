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
    fitted = {**modelParam, 'numbOfEpochs': min(modelParam['numbOfEpochs'], EPOCHS),
              'batch_size': min(modelParam['batch_size'], BATCH_SIZE)}
    share = fitted['numbOfEpochs'] / modelParam['numbOfEpochs']
    milestones = [max(1, round(milestone * share))
                  for milestone in config['scheduler_milestones'] or []]
    if fitted != modelParam:
        print(f"For the demo data numbOfEpochs is {fitted['numbOfEpochs']}, batch_size "
              f"{fitted['batch_size']}, and scheduler_milestones {milestones}.")
    return {**config, 'scheduler_milestones': milestones}, fitted
