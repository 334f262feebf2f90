"""Validating a trained model of any of the tasks."""
from utils.pages.examplePictures import plotImagesAndCaptions

__all__ = ['plotImagesAndCaptions']
