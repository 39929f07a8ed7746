"""Image data in: CIFAR by name, a Parquet file, an image folder or a generated stand-in, as 8-bit NumPy arrays."""

from .loading import describe_image_datasets, load_images
from .sets import ImageSet, ImageSplit

__all__ = ["ImageSet", "ImageSplit", "describe_image_datasets", "load_images"]
