"""Writes data folders in the course's layout."""
import os
import pickle


def write_pickle(path, value):
    with open(path, 'wb') as f:
        pickle.dump(value, f, protocol=4)


def write_course_folder(root, vocabulary, images):
    """Writes the vocabulary, and each image's file with its features pooled and unpooled.

    Args:
        root: the new folder.
        vocabulary: dict as in the vocabulary file.
        images: pairs of 'Train' or 'Val' and a dict as in an image's file, features [10, D].
    """
    os.makedirs(os.path.join(root, 'vocabulary'))
    write_pickle(os.path.join(root, 'vocabulary', 'vocabulary.pickle'), vocabulary)
    for split, image in images:
        name = image['imgPath'].replace('.jpg', '.pickle')
        features = image['cnn_features']
        for kind, values in (('', features), ('max', features.max(0))):
            folder = os.path.join(root, f'{split}2017_detectron2_lim10{kind}features')
            os.makedirs(folder, exist_ok=True)
            write_pickle(os.path.join(folder, name), {**image, 'cnn_features': values})
