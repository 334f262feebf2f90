"""The one path to set: the folder that holds Train2017_detectron2_lim10maxfeatures, vocabulary, val2017 and so on.

Left empty, the university's folder is used where it exists, else the built-in demo data.
"""
DATA_ROOT = ''
