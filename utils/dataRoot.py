"""The one path to set: the folder that holds vocabulary, Train2017_detectron2_lim10maxfeatures …

If it is empty, the university's folder is used where it exists, else the built-in demo data.
"""
DATA_ROOT = ''
